"""train_and_capture: prepared data becomes a model and the sealed ledger of every sample's contribution."""

from typing import Any

from prefect import flow

from tasks.naming import train_name
from tasks.parallel import ConfiguredTaskRunner
from tasks.reporting import show_summary
from tasks.stages import stage
from tasks.training import train_original

RUNNER: Any = ConfiguredTaskRunner()


@flow(name="train_and_capture", flow_run_name=train_name, persist_result=False, task_runner=RUNNER)
def train_and_capture(resume: bool = False, force: bool = False) -> dict[str, Any] | None:
    """Train with capture; `resume` goes on from a killed run's last epoch. Returns a summary, None when nothing was
    stale.
    """
    with stage("train", force or resume) as due:
        if not due:
            return None
        summary = train_original(resume)
        show_summary("training", "Trained and sealed", summary)
    return summary
