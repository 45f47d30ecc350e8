"""What a deletion request is: as asked for (`RequestDraft`) and as journalled (`DeletionRequest`)."""

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from amnesiac.errors import RequestError

Kind = Literal["samples", "subject", "class", "random"]
ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MAX_TEXT_CHARS = 256
_RECEIVED = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class RequestDraft:
    """A request as it comes in, not yet checked against a data set; raises RequestError when malformed.

    `values` are sample ids ("samples", "random"), subject ids ("subject") or names or indices of classes
    ("class"; names are any printable text). Ids match `ID_PATTERN`, as those of every prepared data set do; that
    the data set holds them is checked when the request is filed. Without `request_id` the journal derives one.
    """

    kind: Kind
    values: tuple[str, ...]
    request_id: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        check_content(self.kind, self.values)
        check_names(self.request_id, self.reason)

    def accept(self, salt: str, received: datetime) -> "DeletionRequest":
        """The request to journal: values sorted and each once, with its id; `salt` is the journal's."""
        values = tuple(sorted(set(self.values)))
        request_id = self.request_id or derived_id(self.kind, values, salt)
        return DeletionRequest(request_id, self.kind, values, timestamp(received), self.reason)


@dataclass(frozen=True)
class DeletionRequest:
    """A journalled request; `values` are sorted, `received` is ISO-8601 UTC to the second.

    A "random" request holds the sample ids that were drawn when it was made, so that no later data set or
    NumPy version can change what it means. `redacted`: the values are HMACs (`Journal.redact`), and what the request
    named is no longer known. Raises RequestError when malformed.
    """

    request_id: str
    kind: Kind
    values: tuple[str, ...]
    received: str
    reason: str | None = None
    redacted: bool = False

    def __post_init__(self) -> None:
        check_content(self.kind, self.values)
        check_names(self.request_id, self.reason)
        check_timestamp(self.received)


def derived_id(kind: Kind, values: tuple[str, ...], salt: str) -> str:
    """The id of a request that came without one: the same content gives the same id in one journal.

    HMAC-SHA-256 of kind and sorted values with the journal's salt, not a bare hash: request ids reach logs,
    dashboards and git, and from a bare hash a subject id is found by trying them all.
    """
    content = json.dumps([kind, *values], separators=(",", ":")).encode()
    return "r-" + hmac.new(salt.encode(), content, hashlib.sha256).hexdigest()[:32]


def pending(requests: Iterable[DeletionRequest], applied_ids: Collection[str]) -> tuple[DeletionRequest, ...]:
    """The requests that no published version has applied yet, in journal order."""
    applied = frozenset(applied_ids)
    return tuple(request for request in requests if request.request_id not in applied)


def timestamp(moment: datetime) -> str:
    """ISO-8601 UTC to the second, e.g. 2026-11-23T09:54:00Z."""
    return moment.astimezone(UTC).strftime(_RECEIVED)


def check_content(kind: object, values: object) -> None:
    """Raise RequestError unless `kind` is known and `values` is a tuple of at least one id or class."""
    if kind not in get_args(Kind):
        raise RequestError(f"unknown kind of request {kind!r}: use one of {', '.join(get_args(Kind))}")
    if not isinstance(values, tuple) or not values:
        raise RequestError(f"a {kind} request names nothing: give a tuple of at least one value")
    for value in values:
        if not isinstance(value, str):
            raise RequestError(f'{value!r:.80} isn\'t text: write ids and classes as strings, e.g. "3" and not 3')
        if kind == "class":
            check_text("class", value)
        else:
            check_id("sample id" if kind != "subject" else "subject id", value)


def check_names(request_id: object, reason: object) -> None:
    """Raise RequestError unless each is None or well formed: an id, a text."""
    if request_id is not None:
        check_id("request_id", request_id)
    if reason is not None:
        check_text("reason", reason)


def check_id(what: str, value: object) -> None:
    """Raise RequestError unless `value` matches `ID_PATTERN`."""
    if not isinstance(value, str) or not ID_PATTERN.fullmatch(value):
        raise RequestError(f"{what} {value!r:.80} must be 1 to 64 of A-Z a-z 0-9 _ . : - as text: mend it")


def check_text(what: str, value: object) -> None:
    """Raise RequestError unless `value` is 1 to 256 printable characters without space around them."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_CHARS:
        raise RequestError(f"{what} {value!r:.80} must be a text of 1 to {MAX_TEXT_CHARS} characters: mend it")
    if not value.isprintable() or value != value.strip():
        raise RequestError(f"{what} {value!r:.80} has control characters, or space around it: remove them")


def check_timestamp(received: object) -> None:
    """Raise RequestError unless `received` reads like 2026-11-23T09:54:00Z."""
    try:
        parsed = datetime.strptime(str(received), _RECEIVED).replace(tzinfo=UTC)
    except ValueError:
        parsed = None
    if parsed is None or timestamp(parsed) != received:
        raise RequestError(f"received {received!r:.80} isn't like 2026-11-23T09:54:00Z: give UTC to the second")
