"""unlearn_batch: all requests that are pending become one new model."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.evaluate_unlearning import evaluate_unlearning
from tasks.deletion import plan_batch, plan_requests, subtract
from tasks.naming import unlearn_name
from tasks.reporting import show_summary
from tasks.stages import is_stale, stage, writing


@flow(name="unlearn_batch", flow_run_name=unlearn_name, persist_result=False)
def unlearn_batch(force: bool = False, evaluate: bool = False) -> dict[str, Any] | State[Any]:
    """Subtract what is to be forgotten from the original model; with `evaluate`, compare the result with retraining.

    Returns what the new version covers, or the state "Nothing to do".
    """
    version = None
    with writing("unlearn_batch"):
        with stage("unlearn", force, before=plan_requests) as due:
            if due:
                batch = plan_batch()
                version = subtract(batch)
                show_summary("deletion-batch", f"{batch.new} new requests, {batch.requests} in all", version)
        if evaluate and is_stale("evaluate"):
            evaluate_unlearning()
    return version or Completed(name="Nothing to do", message="no request is pending, and nothing else has changed")
