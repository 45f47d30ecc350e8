"""What is where: requests, deadlines, HEAD, an unfinished batch, the schedule; and the versions that were published."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from amnesiac.publication import Head
from amnesiac.requests import DeletionBatch
from tasks.catalog import LAST_STATE, catalog
from tasks.deadlines import current_deadlines
from tasks.not_held import not_held_requests
from tasks.requesting import pending_requests, request_states, waiting
from tasks.resting import resting

_SCHEDULE = ("cron", "interval_seconds", "minimum_requests", "maximum_wait_seconds")


def status() -> dict[str, Any]:
    """The state of the project's deletions as JSON; opaque request ids, no id of a person.

    Raises DamagedStore and SpecMismatch when HEAD, its version or the journal can't be trusted.
    """
    at, states, open_requests = catalog(), request_states(), pending_requests()
    alarms, (missing, unresolvable) = current_deadlines(), not_held_requests()
    unfinished = next((batch for batch in at.batches().unfinished() if not _rests(batch)), None)
    settings = at.params().recurrence
    return {
        "requests": dict(Counter(states.values())),
        "pending": len(open_requests),
        "not_held": missing,
        "unresolvable": unresolvable,
        "overdue": [d.request_id for d in alarms if d.alarm == "overdue"],
        "due_soon": [d.request_id for d in alarms if d.alarm == "due soon"],
        "deadlines": [asdict(d) for d in alarms if d.alarm != "answered"],
        "head": _head(at.head()),
        "unfinished": _batch(unfinished) if unfinished else None,
        "resting": [_batch(batch) | {"why": resting(batch)} for batch in at.batches().unfinished() if _rests(batch)],
        "last_state": LAST_STATE,
        "schedule": {name: getattr(settings, name) for name in _SCHEDULE} | {"waiting": waiting(open_requests)},
    }


def _rests(batch: DeletionBatch) -> bool:
    """Whether it is published and its erasure waits."""
    return batch.reached("PUBLISHED") and resting(batch) is not None


def history() -> list[dict[str, Any]]:
    """Every publication and rollback in its order, and which version is HEAD."""
    head = catalog().head()
    kept = catalog().store().ids()
    found = []
    for batch in catalog().batches().history():
        if facts := batch.facts("PUBLISHED"):
            current = head is not None and (head.version, head.batch) == (facts["version"], batch.number)
            found.append(_published(batch) | {"head": current, "kept": facts["version"] in kept})
    return found


def _published(batch: DeletionBatch) -> dict[str, Any]:
    facts = batch.facts("PUBLISHED")
    names = ("version", "predecessor", "run_id", "method", "requests", "samples", "drift", "published")
    times = {event.state: event.at for event in batch.events}
    return {"batch": batch.number, "state": "ROLLED_BACK" if batch.ended else batch.state} | {
        "at": times["PUBLISHED"],
        "rolled_back_at": times.get("ROLLED_BACK"),
        "new_requests": len(batch.request_ids),
        **{name: facts[name] for name in names},
    }


def _head(head: Head | None) -> dict[str, Any] | None:
    if head is None:
        return None
    facts = catalog().store().read(head.version).facts
    confidence = facts["confidence"] or {}
    batch = next((batch for batch in catalog().batches().history() if batch.number == head.batch), None)
    times = {event.state: event.at for event in batch.events} if batch else {}
    return {
        "version": head.version,
        "published_at": times.get("PUBLISHED"),
        "requests": len(head.requests),
        "samples": facts["samples"],
        "method": facts["method"],
        "weights": facts["published"],
        "drift": confidence.get("drift"),
        "drift_at_most": confidence.get("drift_at_most", confidence.get("drift")),
        "verdict": confidence.get("verdict"),
        "run_id": head.run_id,
        "batch": head.batch,
        "predecessor": head.predecessor,
        "file": str(catalog().store().read(head.version).folder / "model.safetensors"),
    }


def _batch(batch: DeletionBatch) -> dict[str, Any]:
    events = [{"state": event.state, "at": event.at} for event in batch.events]
    return {"number": batch.number, "state": batch.state, "requests": len(batch.request_ids), "events": events}
