"""prepare: a source of samples becomes prepared data."""

from typing import Any

from prefect import flow

from tasks.data import prepare_data
from tasks.naming import prepare_name
from tasks.reporting import show_summary
from tasks.stages import stage


@flow(name="prepare", flow_run_name=prepare_name, persist_result=False)
def prepare(force: bool = False) -> dict[str, Any] | None:
    """Read, check, split and write the samples. Returns a summary, None when nothing was stale."""
    with stage("prepare", force) as due:
        if not due:
            return None
        summary = prepare_data()
        show_summary("prepared-data", "Prepared data", summary)
    return summary
