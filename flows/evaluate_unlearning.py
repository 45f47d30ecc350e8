"""evaluate_unlearning: the unlearned model is held against one that never saw the forget set."""

from typing import Any

from prefect import flow

from tasks.archiving import archive_reports
from tasks.evaluation import compare_models, forget_set, write_report
from tasks.naming import evaluate_name
from tasks.parallel import ConfiguredTaskRunner
from tasks.reporting import show_comparison
from tasks.stages import stage
from tasks.training import retrained_references

RUNNER: Any = ConfiguredTaskRunner()


@flow(name="evaluate_unlearning", flow_run_name=evaluate_name, persist_result=False, task_runner=RUNNER)
def evaluate_unlearning(force: bool = False) -> dict[str, Any] | None:
    """Retrain without the forget set (once), compare, report. Returns the metrics, None when nothing was stale."""
    with stage("evaluate", force) as due:
        if not due:
            return None
        forget = forget_set()
        retrained, *others = retrained_references(forget)
        metrics = compare_models(forget, retrained, others)
        report = write_report(metrics, forget, retrained)
        show_comparison(metrics, report)
        archive_reports()
    return metrics
