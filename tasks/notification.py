"""Telling somebody: the user's command (`recurrence.notify_command`) gets JSON when a run fails or a deadline is near.

The command is a program with arguments, run without a shell. It reads one JSON object from stdin, which holds counts
and request ids, never what a request names. That it fails is logged, and fails nothing.
"""

import hashlib
import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.objects import State as RunState
from prefect.events import emit_event
from prefect.flows import Flow
from pydantic import Field

from amnesiac.errors import AmnesiacError
from amnesiac.requests import Deadline
from tasks.catalog import catalog
from tasks.deadlines import current_deadlines
from tasks.opaque import opaque

DEADLINE = "amnesiac.deadline"
"""Prefect's event: requests are overdue or due soon."""
Alarming = Literal["failed", "crashed", "late", "deadline"]
RunResource = Annotated[str, Field(pattern=r"^(prefect\.flow-run\.[0-9a-f-]{36})?$")]
"""A run as events name it; empty for none."""
_TIMEOUT_SECONDS = 60.0
_log = logging.getLogger("amnesiac.notification")


def tell_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    """Prefect's hook for a run that failed."""
    _tell_of_run("failed", flow, flow_run, state)


def tell_of_crash(flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    """Prefect's hook for a run whose process was killed; the serving process calls it."""
    _tell_of_run("crashed", flow, flow_run, state)


def tell_of_alarm(event: Alarming, run: str) -> bool:
    """What an automation saw: run the user's command unless it took the same before; whether it takes it now.

    run: Prefect's name of the run's resource, `prefect.flow-run.ID`; empty for deadlines
    """
    if event == "deadline":
        return bool(alarms := _alarms()) and notify("deadline", {"requests": [_facts(one) for one in alarms]})
    run_id = run.rpartition(".")[2]
    if _mark(event, run_id).exists():
        return False
    return _noted(event, run_id, {"run_id": run_id, "state": event.capitalize(), "deadlines": _counts()})


@task(name="watch the deadlines", cache_policy=NO_CACHE, persist_result=False)
@opaque
def watch_deadlines() -> None:
    """Tell of requests that are overdue or due soon and not answered: the command, and Prefect's automations."""
    if alarms := _alarms():
        _log.warning("%d requests are overdue or due soon", len(alarms))
        told = notify("deadline", {"requests": [_facts(deadline) for deadline in alarms]})
        if not told or catalog().params().recurrence.notify_block:
            counts = {alarm: sum(one.alarm == alarm for one in alarms) for alarm in ("overdue", "due soon")}
            emit_event(DEADLINE, resource={"prefect.resource.id": project_resource()}, payload=counts)


def project_resource() -> str:
    """This project's name in Prefect's events: projects that share a server don't answer to each other's."""
    return f"amnesiac.project.{hashlib.sha256(str(catalog().root).encode()).hexdigest()[:12]}"


def _alarms() -> list[Deadline]:
    return [deadline for deadline in current_deadlines() if deadline.alarm in ("due soon", "overdue")]


def notify(event: str, facts: Mapping[str, Any]) -> bool:
    """Run the user's command, if there is one, with `facts` on stdin; whether it ended well."""
    command = catalog().params().recurrence.notify_command
    if command is None:
        return False
    message = {"event": event, "project": str(catalog().root), "at": datetime.now(UTC).isoformat(), **facts}
    try:
        _run(command, json.dumps(message))
    except (OSError, subprocess.SubprocessError) as error:
        _log.error("recurrence.notify_command %r didn't take %r: %s", command[0], event, error)
        return False
    return True


def _run(command: Sequence[str], message: str) -> None:
    subprocess.run(
        command, input=message, text=True, cwd=catalog().root, timeout=_TIMEOUT_SECONDS, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _tell_of_run(event: str, flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    facts = {"flow": flow.name, "run": flow_run.name, "run_id": str(flow_run.id), "state": state.name}
    _noted(event, str(flow_run.id), facts | {"deadlines": _counts()})


def _noted(event: str, run_id: str, facts: Mapping[str, Any]) -> bool:
    """Tell, and note it, so that hook and automation don't both tell."""
    told = notify(event, facts)
    if told:
        mark = _mark(event, run_id)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
    return told


def _mark(event: str, run_id: str) -> Path:
    return catalog().root / ".prefect" / "told" / f"{event}-{run_id}"


def _counts() -> dict[str, int] | None:
    """Requests by alarm; None where the journal can't be read, which may be why the run failed."""
    try:
        found = [deadline.alarm for deadline in current_deadlines()]
    except AmnesiacError as error:
        _log.error("the deadlines can't be read: %s", type(error).__name__)
        return None
    return {alarm: found.count(alarm) for alarm in sorted(set(found))}


def _facts(deadline: Deadline) -> dict[str, Any]:
    names = ("request_id", "state", "received", "due", "days_left", "alarm")
    return {name: getattr(deadline, name) for name in names}
