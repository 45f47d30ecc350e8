"""audit: ensembles of models that forgot against ensembles that never knew, and the audit's check of itself."""

from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.ensembles import (
    AuditPlan,
    ensembles,
    judge_ensembles,
    plan_ensembles,
    plan_memorisation,
    show_audit,
    train_member,
)
from tasks.naming import audit_name
from tasks.stages import writing

RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=16)  # its threads only wait for the pool's processes


@flow(name="audit", flow_run_name=audit_name, persist_result=False, task_runner=RUNNER)
def audit(plan: AuditPlan) -> dict[str, Any]:
    """Train the members that are missing, compare, judge. Killed, it goes on with the next member when run again."""
    with writing("audit"), ensembles(plan):
        scored = train_member.map(plan_memorisation(plan)).result()
        trained = train_member.map(plan_ensembles(plan, scored)).result()
        result = judge_ensembles(plan, trained)
        show_audit(result)
    return result
