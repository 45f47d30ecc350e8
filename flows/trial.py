"""trial: what deletions would do, before anybody asks for them: many batches at once, each against its retraining."""

from typing import Any

from prefect import flow

from tasks.naming import trial_name
from tasks.parallel import ConfiguredTaskRunner
from tasks.stages import writing
from tasks.trials import TrialPlan, plan_trials, try_deletions, write_trials

RUNNER: Any = ConfiguredTaskRunner()


@flow(name="trial", flow_run_name=trial_name, persist_result=False, task_runner=RUNNER)
def trial(plan: TrialPlan) -> list[dict[str, Any]]:
    """Subtract each batch from the published model in memory, retrain without it, compare. Publishes nothing."""
    with writing("trial"):
        rows = try_deletions(plan_trials(plan))
        write_trials(plan, rows)
    return rows
