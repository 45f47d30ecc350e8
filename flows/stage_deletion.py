"""stage_deletion: what DVC's stage `unlearn` runs. It stages a version and publishes nothing."""

from typing import Any

from prefect import flow

from tasks.deletion import subtract
from tasks.naming import stage_name
from tasks.reporting import show_summary
from tasks.requesting import plan_requests
from tasks.stages import stage


@flow(name="stage_deletion", flow_run_name=stage_name, persist_result=False)
def stage_deletion(force: bool = False) -> dict[str, Any] | None:
    """Subtract what is to be forgotten. Returns what the staged version covers, None when nothing was stale."""
    with stage("unlearn", force, before=plan_requests) as due:
        if not due:
            return None
        version = subtract()
        show_summary("staged-version", "Staged, not published", version)
    return version
