"""unlearn_batch: all requests that are pending become one new published model, state by state."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.evaluate_unlearning import evaluate_unlearning
from tasks.archiving import archive_reports, batch_links
from tasks.clearing import purge_copies
from tasks.deletion import subtract
from tasks.erasing import destroy_keys
from tasks.naming import unlearn_name
from tasks.notification import tell_of_crash, tell_of_failure, watch_deadlines
from tasks.publishing import (
    abandoned_on_error,
    batch_summary,
    evaluated,
    idle,
    latest,
    plan_batch,
    publish_version,
    recover_batch,
    staged,
)
from tasks.receipting import issue_receipts, redact_receipted
from tasks.reporting import show_batch
from tasks.resting import due_batches
from tasks.scanning import scan_for_residues
from tasks.stages import is_stale, stage, writing


@flow(
    name="unlearn_batch",
    flow_run_name=unlearn_name,
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def unlearn_batch(force: bool = False, evaluate: bool = True, patient: bool = False) -> dict[str, Any] | State[Any]:
    """Carry a deletion batch from RECEIVED to RECEIPTED; a crash before PUBLISHED rolls back, after it the next
    run goes on.

    `patient` (as scheduled): wait for `recurrence.minimum_requests`. Returns the batch's states, or the state
    "Nothing to do" or "Waiting".
    """
    with writing("unlearn_batch"), abandoned_on_error():
        recover_batch()
        archive_reports()  # of a batch that was published by a run that was killed
        for earlier in due_batches():  # published by a run that was killed, or whose grace is over
            purge_copies(destroy_keys(earlier))
        batch = plan_batch(force, patient)  # RECEIVED → PLANNED
        if batch is None:
            if evaluate and is_stale("evaluate"):
                evaluate_unlearning()
            erase()
            watch_deadlines()
            return idle()
        with stage("unlearn", force) as due:
            if due:
                subtract()
        batch = staged(batch)  # → STAGED
        if evaluate and (force or is_stale("evaluate")):
            evaluate_unlearning(force)
        batch = evaluated(batch, evaluate)  # → EVALUATED
        batch = publish_version(batch)  # → PUBLISHED: the commit point
        archive_reports()
        erase()  # → KEYS_DESTROYED → PURGED → SCANNED → RECEIPTED: tasks.catalog.LAST_STATE
        batch = latest(batch)
        summary = batch_summary(batch)
        show_batch(summary, *batch_links(batch))
        watch_deadlines()
    return summary


def erase() -> None:
    """Carry every published batch on: KEYS_DESTROYED → PURGED → SCANNED → RECEIPTED; those in their grace time rest."""
    for batch in due_batches():
        issue_receipts(scan_for_residues(purge_copies(destroy_keys(batch))))
    archive_reports()
    redact_receipted()  # also where a run was killed before it came to that
