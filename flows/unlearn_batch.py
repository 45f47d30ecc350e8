"""unlearn_batch: all requests that are pending become one new published model, state by state."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.evaluate_unlearning import evaluate_unlearning
from tasks.deletion import subtract
from tasks.naming import unlearn_name
from tasks.notification import tell_of_crash, tell_of_failure, watch_deadlines
from tasks.publishing import (
    abandoned_on_error,
    batch_summary,
    evaluated,
    idle,
    plan_batch,
    publish_version,
    recover_batch,
    staged,
)
from tasks.reporting import show_summary
from tasks.stages import is_stale, stage, writing


@flow(
    name="unlearn_batch",
    flow_run_name=unlearn_name,
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def unlearn_batch(force: bool = False, evaluate: bool = True, patient: bool = False) -> dict[str, Any] | State[Any]:
    """Carry a deletion batch from RECEIVED to PUBLISHED; before that a crash rolls back, after it the next run goes on.

    `patient` (as scheduled): wait for `recurrence.minimum_requests`. Returns the batch's states, or the state
    "Nothing to do" or "Waiting".
    """
    with writing("unlearn_batch"), abandoned_on_error():
        recover_batch()
        batch = plan_batch(force, patient)  # RECEIVED → PLANNED
        if batch is None:
            if evaluate and is_stale("evaluate"):
                evaluate_unlearning()
            watch_deadlines()
            return idle()
        with stage("unlearn", force) as due:
            if due:
                subtract()
        batch = staged(batch)  # → STAGED
        if evaluate and (force or is_stale("evaluate")):
            evaluate_unlearning(force)
        batch = evaluated(batch, evaluate)  # → EVALUATED
        batch = publish_version(batch)  # → PUBLISHED: the commit point; tasks.catalog.LAST_STATE
        summary = batch_summary(batch)
        show_summary("deletion-batch", "Deletion batch", summary)
        watch_deadlines()
    return summary
