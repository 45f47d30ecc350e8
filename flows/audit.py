"""audit: ensembles of models that forgot against ensembles that never knew, and the audit's check of itself."""

from typing import Any

from prefect import flow

from tasks.ensembles import (
    AuditPlan,
    ensembles,
    judge_ensembles,
    plan_ensembles,
    plan_memorisation,
    show_audit,
    train_members,
)
from tasks.naming import audit_name
from tasks.parallel import ConfiguredTaskRunner
from tasks.stages import writing

RUNNER: Any = ConfiguredTaskRunner(max_workers=16)  # threads only wait for the pool's processes


@flow(name="audit", flow_run_name=audit_name, persist_result=False, task_runner=RUNNER)
def audit(plan: AuditPlan) -> dict[str, Any]:
    """Train the members that are missing, compare, judge. Killed, it goes on with the next member when run again."""
    with writing("audit"), ensembles(plan):
        scored = train_members(plan, plan_memorisation(plan))
        trained = train_members(plan, plan_ensembles(plan, scored))
        result = judge_ensembles(plan, trained)
        show_audit(result)
    return result
