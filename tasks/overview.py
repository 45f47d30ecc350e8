"""All that the status page shows, as JSON: `tasks.status`, and batches, requests, versions, verdicts, alarms."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from amnesiac.receipts import Chain
from amnesiac.requests import Deadline, DeletionBatch
from tasks.archiving import archived_verdict
from tasks.catalog import catalog
from tasks.deadlines import current_deadlines
from tasks.resting import resting
from tasks.status import history, status

ANSWERED_SHOWN = 20
BATCHES_SHOWN = 50
_chains: dict[str, Chain] = {}


def overview() -> dict[str, Any]:
    """Counts, states, times and opaque ids; nothing is written. Raises what `tasks.status.status` raises."""
    found, versions, deadlines = status(), history(), current_deadlines()
    batches = [_batch(batch, found["head"]) for batch in reversed(catalog().batches().history())][:BATCHES_SHOWN]
    shown = _shown(deadlines)
    budget = catalog().params().unlearning.confidence.drift_budget
    drift = {"now": found["head"]["drift"] if found["head"] else None, "budget": budget}
    return {
        **found,
        "head": _without_place(found["head"]),
        "project": catalog().root.name,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "alarms": _alarms(found, drift),
        "drift": drift,
        "batches": batches,
        "requests_shown": _requests(shown),
        "requests_left_out": len(deadlines) - len(shown),
        "versions": list(reversed(versions)),
    }


def _without_place(head: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Where files lie on this machine is nothing for a page."""
    return {name: value for name, value in head.items() if name != "file"} if head else None


def _batch(batch: DeletionBatch, head: Mapping[str, Any] | None) -> dict[str, Any]:
    planned, rests = batch.facts("PLANNED"), batch.reached("PUBLISHED") and not batch.ended
    return {
        "number": batch.number,
        "state": batch.state,
        "ended": batch.ended,
        "requests": len(batch.request_ids),
        "samples": planned.get("samples"),
        "run": planned.get("run"),
        "at": batch.events[-1].at if batch.events else None,
        "why": resting(batch) if rests else None,
        "head": head is not None and head["batch"] == batch.number and not batch.ended,
        "verdict": archived_verdict(batch.number),
        "events": [{"state": event.state, "at": event.at} for event in batch.events],
    }


def _shown(deadlines: Sequence[Deadline]) -> list[Deadline]:
    """All that are open, the most urgent first, then the newest that are answered."""
    waiting = sorted((d for d in deadlines if d.alarm != "answered"), key=lambda d: d.due)
    answered = [d for d in deadlines if d.alarm == "answered"]
    return [*waiting, *reversed(answered[-ANSWERED_SHOWN:])]


def _requests(shown: Sequence[Deadline]) -> list[dict[str, Any]]:
    at, kinds = catalog(), {r.request_id: r.kind for r in catalog().open_journal().requests()}
    chain = _chains.setdefault(str(at.receipts), Chain(at.receipts))
    numbers = {d.request_id: stored.signed.sequence for d in shown if (stored := chain.find(d.request_id))}
    return [
        asdict(d) | {"kind": kinds.get(d.request_id, "–"), "receipt": numbers.get(d.request_id)} for d in shown
    ]  # fmt: skip


def _alarms(found: Mapping[str, Any], drift: Mapping[str, Any]) -> list[dict[str, str]]:
    """What somebody has to do something about, the worst first."""
    alarms = []
    if count := len(found["overdue"]):
        alarms.append(_alarm("bad", f"{count} overdue.", "One calendar month has passed. Run `amnesiac publish` now."))
    if drift["now"] is not None and drift["now"] > drift["budget"]:
        text = "Subtraction has led beyond its budget. Prepare and train anew without the deleted samples."
        alarms.append(_alarm("bad", "Drift is over its budget.", text))
    if count := len(found["due_soon"]):
        alarms.append(_alarm("warn", f"{count} due soon.", "Run `amnesiac publish`, or see that the schedule does."))
    if unfinished := found["unfinished"]:
        text = f"It is {unfinished['state']}. If no run is at work, `amnesiac recover` puts it right."
        alarms.append(_alarm("warn", f"Batch {unfinished['number']} is unfinished.", text))
    return alarms


def _alarm(level: str, title: str, text: str) -> dict[str, str]:
    return {"level": level, "title": title, "text": text}
