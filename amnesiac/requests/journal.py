"""The journal of deletion requests: a SQLite file in a private folder that git ignores, or a server (see `database`).

It also holds the salt that keys derived request ids and the HMACs in pointers: it lies with the requests, not in a file
beside them, so that journal and salt can't be parted, and it keeps ids from being guessed from what git publishes.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from amnesiac.errors import DamagedStore, RequestError, SpecMismatch, UnknownSample
from amnesiac.requests import tables
from amnesiac.requests.chain import point, request_hmacs
from amnesiac.requests.database import FILE_NAME, REMEDY
from amnesiac.requests.places import open_database
from amnesiac.requests.pointer import Pointer
from amnesiac.requests.request import DeletionRequest, Kind, RequestDraft, timestamp
from amnesiac.requests.resolution import refuse_unfit

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FilingResult:
    """`filed` is new in the journal; `already` was there before, or earlier in the same batch."""

    filed: tuple[DeletionRequest, ...]
    already: tuple[DeletionRequest, ...]


class Journal:
    """The journal in a folder, or on the server at `url`; what isn't there yet is an empty journal."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Name the folder; nothing is opened or created yet. Raises SettingsError for an unusable `url`."""
        self.path = folder / FILE_NAME
        self.database = open_database(folder, url)

    def file(
        self, drafts: Sequence[RequestDraft], index: "pd.DataFrame", *, forgotten: Sequence[int] = (),
        received: datetime | None = None,
    ) -> FilingResult:  # fmt: skip
        """Check all drafts against the data set's index, then append the new ones in one transaction.

        forgotten: train rows that the published version forgot (requests that were redacted don't tell any more)
        received:  when they came in; now, if None

        When one draft is refused, or the process is killed, nothing is written. When this returns, the requests survive
        a power cut. Raises UnknownSample listing what the index doesn't hold; RequestError when a request_id is already
        used for something else, `received` lies in the future, or nothing of the train split would be left;
        DamagedStore when the journal can't be read; StoreError when it can't be written.
        """
        moment = _past(received or datetime.now(UTC))
        try:
            refuse_unfit(drafts, (), index)  # before the lock, so that a refused first filing creates no file
        except UnknownSample:  # what was filed before may be erased by now, and is known all the same
            refuse_unfit(self._new(drafts, moment), (), index)
        if not drafts:
            return FilingResult((), ())
        with self.database.writing(otherwise="nothing was filed") as connection:
            held = self._read(connection, None)
            result = _sort_out(drafts, held, _salt(connection), moment)
            refuse_unfit(result.filed, [request for request in held if not request.redacted], index, forgotten)
            rows = [_row(number, request) for number, request in enumerate(result.filed, start=len(held) + 1)]
            if rows:
                connection.execute(insert(tables.requests), rows)
        return result

    def requests(self, count: int | None = None) -> tuple[DeletionRequest, ...]:
        """The first `count` requests (all, if None) in the order of their filing.

        Raises SpecMismatch when there are fewer, DamagedStore naming the request that can't be read.
        """
        return self._first(count)[0]

    def pointer(self) -> Pointer:
        """The pointer to everything journalled until now."""
        requests, salt = self._first(None)
        return point(salt, requests)

    def read_prefix(self, pointer: Pointer) -> tuple[DeletionRequest, ...]:
        """The requests that the pointer names; raises SpecMismatch unless they are in this journal unchanged."""
        requests, salt = self._first(pointer.count)
        if point(salt, requests) != pointer:
            raise SpecMismatch(
                f"the first {pointer.count} requests of {self.database.name} aren't those the pointer names: the "
                "journal was altered or belongs to another project. Restore it from a backup (git doesn't hold it)"
            )
        return requests

    def salt(self) -> str:
        """The journal's salt, 64 hex digits; raises SpecMismatch where there is no journal yet."""
        salt = self._first(None)[1]
        if not salt:
            raise SpecMismatch(f"{self.database.name} doesn't exist yet: file a request first")
        return salt

    def redact(self, request_ids: Collection[str]) -> int:
        """Replace the values of requests by their HMACs and drop their reasons; how many were not redacted before.

        No copy of the values is left in the file or its log, or in the server's tables. Pointers stay valid, a repeated
        filing still finds the first, but nobody can resolve the request any more. Raises RequestError when one is
        unknown or not receipted, and then none is redacted.
        """
        wanted = frozenset(request_ids)
        with self.database.writing() as connection:
            receipted = set(connection.scalars(tables.receipted))
            if missing := sorted(wanted - receipted):
                raise RequestError(
                    f"{len(missing)} requests aren't receipted yet or unknown, the first {missing[0]!r}: values are "
                    "kept until a deletion has its receipt"
                )
            salt, held = _salt(connection), self._read(connection, None)
            chosen = [request for request in held if request.request_id in wanted and not request.redacted]
            self.database.will_wipe(connection)
            for request in chosen:
                _hide(connection, request, request_hmacs(salt, request))
        self.database.wipe()
        return len(chosen)

    def finish_wiping(self) -> None:
        """Remove copies of values that a process took out (`redact`, `Batches.drop`) which was killed then."""
        self.database.finish_wiping()

    def _new(self, drafts: Sequence[RequestDraft], moment: datetime) -> Sequence[RequestDraft | DeletionRequest]:
        """Those of the drafts that aren't journalled."""
        held, salt = self._first(None)
        return _sort_out(drafts, held, salt, moment).filed if salt else drafts

    def _first(self, count: int | None) -> tuple[tuple[DeletionRequest, ...], str]:
        """Requests and the salt; no salt where there is no journal."""
        with self.database.reading() as connection:
            requests = self._read(connection, count) if connection else ()
            salt = _salt(connection) if connection else ""
        if count is not None and (count < 0 or len(requests) < count):
            held = len(self._first(None)[0])
            raise SpecMismatch(
                f"{self.database.name} holds {held} requests, and the first {count} were asked for: "
                "restore the journal from a backup (git doesn't hold it), or file the requests again"
            )
        return requests, salt

    def _read(self, connection: Connection, count: int | None) -> tuple[DeletionRequest, ...]:
        wanted = tables.in_order if count is None else tables.in_order.limit(max(count, 0))
        rows = connection.execute(wanted).all()
        return tuple(self._request(place, *row) for place, row in enumerate(rows, start=1))

    def _request(
        self, place: int, number: int, request_id: str, kind: Kind, items: str, received: str, reason: str | None,
        redacted: int,
    ) -> DeletionRequest:  # fmt: skip
        try:
            if number != place:
                raise RequestError("requests before it are missing")
            values = json.loads(items)
            if not isinstance(values, list):
                raise RequestError("its values aren't a list")
            return DeletionRequest(request_id, kind, tuple(values), received, reason, bool(redacted))
        except (ValueError, RecursionError, RequestError) as error:
            raise DamagedStore(f"{self.database.name}: request {place} isn't one ({error}): {REMEDY}") from error


def _past(moment: datetime) -> datetime:
    if moment > datetime.now(UTC):
        raise RequestError(f"received {timestamp(moment)} lies in the future: give the time when the request came in")
    return moment


def _salt(connection: Connection) -> str:
    found = connection.scalars(select(tables.salt.c.salt)).all()
    if len(found) != 1 or len(found[0]) < 32:
        raise DamagedStore(f"the deletion journal has lost its salt: {REMEDY}")
    return str(found[0])


def _row(number: int, request: DeletionRequest) -> dict[str, int | str | None]:
    return {
        "number": number, "request_id": request.request_id, "kind": request.kind, "items": json.dumps(request.values),
        "received": request.received, "reason": request.reason,
    }  # fmt: skip


def _hide(connection: Connection, request: DeletionRequest, hmacs: Sequence[str]) -> None:
    changed = update(tables.requests).where(tables.requests.c.request_id == request.request_id)
    connection.execute(changed.values(items=json.dumps(hmacs), reason=None, redacted=1))


def _sort_out(
    drafts: Sequence[RequestDraft], held: Sequence[DeletionRequest], salt: str, received: datetime
) -> FilingResult:
    """Tell new requests from known ones by their id; raises RequestError when an id names two things."""
    known = {request.request_id: request for request in held}
    filed: list[DeletionRequest] = []
    already: list[DeletionRequest] = []
    for draft in drafts:
        request = draft.accept(salt, received)
        first = known.setdefault(request.request_id, request)
        if first.kind != request.kind or request_hmacs(salt, first) != request_hmacs(salt, request):
            raise RequestError(
                f"request_id {request.request_id!r} is already used for another request "
                f"({first.kind}, received {first.received}), and nothing was filed: give this one its own id"
            )
        (filed if first is request else already).append(first)
    return FilingResult(tuple(filed), tuple(already))
