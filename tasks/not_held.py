"""Which requests name what the prepared data doesn't hold (unknown, or erased before): listed as keyed hashes."""

from typing import Any

from amnesiac.errors import RequestError, StoreError
from amnesiac.requests import DeletionRequest, not_held
from tasks.catalog import catalog
from tasks.requesting import erased_before, noted_not_held, opaque_ids, pending_requests


def not_held_requests() -> tuple[list[dict[str, Any]], str | None]:
    """A line a request that names what isn't held, and why pending requests can't be looked up at the moment, if so.

    Of requests in a batch: what was noted when it was planned. Of pending ones: as of now; `blocks`: the next batch is
    refused because of it (`requests.unknown: refuse`, and not all of it was erased before).
    """
    pending = pending_requests()
    try:
        waiting, blocking, problem = *_looked_up(pending), None
    except (StoreError, RequestError) as error:
        waiting, blocking, problem = {}, set(), str(error)
    noted, ids = noted_not_held(), {request.request_id for request in pending}
    shown = {name: values for name, values in noted.items() if name not in ids} | waiting
    named = {request.request_id: len(request.values) for request in catalog().open_journal().requests()}
    return [
        {"request_id": name, "named": named[name], "not_held": len(values), "ids": values, "blocks": name in blocking}
        for name, values in shown.items()
    ], problem


def _looked_up(pending: tuple[DeletionRequest, ...]) -> tuple[dict[str, list[str]], set[str]]:
    """What pending requests name and isn't held, and the requests that stop the next batch."""
    if not pending:
        return {}, set()
    found = not_held(pending, catalog().dataset().index)
    kinds, gone = {request.request_id: request.kind for request in pending}, erased_before()
    refuses = catalog().params().requests.unknown == "refuse"
    blocking = {name for name, values in found.items() if not all(gone(kinds[name], value) for value in values)}
    return opaque_ids(found), blocking if refuses else set()
