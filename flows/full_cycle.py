"""full_cycle: prepare, train and capture, file requests, unlearn, evaluate, publish; what DVC calls up to date is
passed over.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.prepare import prepare
from flows.train_and_capture import train_and_capture
from flows.unlearn_batch import unlearn_batch
from tasks.handing_in import Reference, file_new_requests
from tasks.stages import writing


@flow(name="full_cycle", flow_run_name="full cycle", persist_result=False)
def full_cycle(handed_in: Reference | None = None, force: bool = False) -> dict[str, Any] | State[Any]:
    """The whole pipeline; what was handed in (`handed_in` refers to it) is filed once the data is prepared.

    Returns what `unlearn_batch` returns.
    """
    with writing("full_cycle"):
        prepare(force)
        train_and_capture(force=force)
        file_new_requests()
        return unlearn_batch(force)
