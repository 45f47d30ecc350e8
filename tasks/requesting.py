"""Deletion requests: file them, tell which are pending, move the pointer that says what the next version covers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from amnesiac.erasure import Tombstones
from amnesiac.errors import SpecMismatch
from amnesiac.requests import (
    STATES,
    DeletionRequest,
    FilingResult,
    ForgetSet,
    Gone,
    Kind,
    Pointer,
    RequestDraft,
    State,
    pending,
    read_pointer,
    resolve,
    value_hmac,
    write_pointer,
)
from tasks.catalog import catalog
from tasks.restoring import came_back, refuse_unnamed


def erased_before() -> Gone:
    """Whether a request's value names what was erased: then the data set doesn't hold it any more."""
    noted = Tombstones(catalog().tombstones).contains()

    def gone(kind: Kind, value: str) -> bool:
        return kind != "class" and any(noted(one, value) for one in ("sample", "subject", "vanished"))

    return gone


def resolved(requests: Sequence[DeletionRequest]) -> ForgetSet:
    """The rows that requests name in the prepared data; raises what `resolve` does, as `requests.unknown` says.

    Raises SpecMismatch when samples that were erased are back from a backup, and no request names them.
    """
    at, dataset = catalog(), catalog().dataset()
    back = came_back(at, dataset)
    refuse_unnamed(back, at.open_journal().requests() if back else ())
    # prepared after all erasures: what was redacted isn't in it; or whoever of them is in it is named anew
    harmless = not dataset.erased.any() or bool(back)
    unknown = at.params().requests.unknown
    return resolve(requests, dataset.index, gone=erased_before(), redacted=harmless, unknown=unknown)


def opaque_ids(named: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By request id, keyed hashes of values that a request names (`ForgetSet.not_held`), as receipts have them."""
    if not named:
        return {}
    journal = catalog().open_journal()
    salt, kinds = journal.salt(), {request.request_id: request.kind for request in journal.requests()}
    return {name: [value_hmac(salt, kinds[name], value) for value in values] for name, values in named.items()}


def noted_not_held() -> dict[str, list[str]]:
    """What batches that count noted as not held when they were planned, as keyed hashes by request id."""
    found: dict[str, list[str]] = {}
    for batch in catalog().batches().history():
        if not batch.ended:
            found |= batch.facts("PLANNED").get("not_held", {})
    return found


def file_requests(drafts: Sequence[RequestDraft], received: datetime | None = None) -> FilingResult:
    """Journal requests after checking every id against the prepared data; raises RequestError, and then nothing is
    filed.

    received: when they came in; now, if None
    """
    at = catalog()
    head, store = at.head(), at.store()
    forgotten = store.read(head.version).positions() if head else ()
    return at.open_journal().file(drafts, at.dataset().index, forgotten=forgotten, received=received)


def plan_requests() -> None:
    """Let the next version cover everything journalled so far: move the pointer that DVC sees. Under the writer
    lock.

    Raises SpecMismatch when the journal no longer holds what the pointer names: a journal that was lost must not take
    deletions back.
    """
    journal, path = catalog().open_journal(), catalog().requests
    if path.exists():
        _check_held(read_pointer(path))
    pointer = journal.pointer()
    if not path.exists() or read_pointer(path) != pointer:
        write_pointer(path, pointer)


def planned_requests(pointer: Pointer) -> tuple[DeletionRequest, ...]:
    """The journal's requests up to a pointer; none, and no journal needed, for the pointer of an empty one."""
    return catalog().open_journal().read_prefix(pointer) if pointer.count else ()


def applied_requests() -> frozenset[str]:
    """Ids of the requests that the published version covers: HEAD alone says so."""
    head = catalog().head()
    return frozenset(head.requests) if head else frozenset()


def pending_requests() -> tuple[DeletionRequest, ...]:
    """Requests that the published version doesn't cover yet."""
    return pending(catalog().open_journal().requests(), applied_requests())


def waiting(new: Sequence[DeletionRequest]) -> bool:
    """Whether a scheduled run leaves these pending requests for a later, larger batch."""
    settings, now = catalog().params().recurrence, datetime.now(UTC)
    if not 0 < len(new) < settings.minimum_requests:
        return False
    oldest = min(datetime.fromisoformat(request.received) for request in new)
    return (now - oldest).total_seconds() < settings.maximum_wait_seconds


def request_states() -> dict[str, State]:
    """The state of every journalled request, in journal order."""
    applied, states = applied_requests(), catalog().batches().request_states()
    return {
        request.request_id: _state(states.get(request.request_id, "RECEIVED"), request.request_id in applied)
        for request in catalog().open_journal().requests()
    }


def _state(of_batch: State, applied: bool) -> State:
    """HEAD has the last word on whether a request is published."""
    if applied == (STATES.index(of_batch) >= STATES.index("PUBLISHED")):
        return of_batch
    return "PUBLISHED" if applied else "RECEIVED"


def _check_held(pointer: Pointer) -> None:
    try:
        catalog().open_journal().read_prefix(pointer)
    except SpecMismatch as error:
        raise SpecMismatch(f"{error}. To begin anew with the journal as it is, remove {catalog().requests}") from error
