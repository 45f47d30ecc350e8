"""How a journalled request reads as a line of JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amnesiac.errors import DamagedStore, RequestError
from amnesiac.requests.request import DeletionRequest

_FIELDS = {"request_id", "kind", "values", "received", "reason"}


@dataclass(frozen=True)
class JournalContent:
    """What the journal's lines say. `salt` stands in the first line; it is None where there is no line."""

    requests: tuple[DeletionRequest, ...]
    salt: str | None


def encode(requests: Sequence[DeletionRequest], salt: str | None) -> bytes:
    """One line a request, in ASCII; `salt` is given with the journal's first requests and joins the first line."""
    records = [asdict(request) for request in requests]
    if salt is not None:
        records[0]["salt"] = salt
    return b"".join(json.dumps(r, sort_keys=True, separators=(",", ":")).encode() + b"\n" for r in records)


def decode(lines: Sequence[bytes], path: Path) -> JournalContent:
    """Read the journal's leading lines; raises DamagedStore naming `path` and the first bad line."""
    requests: dict[str, DeletionRequest] = {}
    salt: str | None = None
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line[:-1].decode())  # from bytes, json would guess at UTF-16 and UTF-32
            if number == 1:
                salt = _take_salt(fields)
            request = _request(fields)
            if request.request_id in requests:
                raise RequestError("its request_id stands in an earlier line")
        except (ValueError, RecursionError, RequestError) as error:
            raise DamagedStore(
                f"{path}:{number} isn't a journalled request ({error}): restore the journal from a backup"
            ) from error
        requests[request.request_id] = request
    return JournalContent(tuple(requests.values()), salt)


def _take_salt(fields: Any) -> str:
    salt = fields.pop("salt", None) if isinstance(fields, dict) else None
    if not isinstance(salt, str) or len(salt) < 32:
        raise RequestError("the journal's first line must hold its salt")
    return salt


def _request(fields: Any) -> DeletionRequest:
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise RequestError(f"it isn't an object of {', '.join(sorted(_FIELDS))}")
    values = fields["values"]
    if not isinstance(values, list) or fields["request_id"] is None:
        raise RequestError("values isn't a list, or there is no request_id")
    return DeletionRequest(**{**fields, "values": tuple(values)})
