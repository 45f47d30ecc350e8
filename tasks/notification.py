"""Telling somebody: the user's command (`recurrence.notify_command`) gets JSON when a run fails or a deadline is near.

The command is a program with arguments, run without a shell. It reads one JSON object from stdin, which holds counts
and request ids, never what a request names. That it fails is logged, and fails nothing.
"""

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.objects import State as RunState
from prefect.flows import Flow

from amnesiac.errors import AmnesiacError
from amnesiac.requests import Deadline, deadlines
from tasks.catalog import LAST_STATE, catalog
from tasks.opaque import opaque
from tasks.requesting import request_states

_TIMEOUT_SECONDS = 60.0
_log = logging.getLogger("amnesiac.notification")


def tell_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    """Prefect's hook for a run that failed."""
    _tell_of_run("failed", flow, flow_run, state)


def tell_of_crash(flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    """Prefect's hook for a run whose process was killed; the serving process calls it."""
    _tell_of_run("crashed", flow, flow_run, state)


@task(name="watch the deadlines", cache_policy=NO_CACHE, persist_result=False)
@opaque
def watch_deadlines() -> None:
    """Tell of requests that are overdue or due soon and not answered."""
    alarms = [deadline for deadline in current_deadlines() if deadline.alarm in ("due soon", "overdue")]
    if alarms:
        _log.warning("%d requests are overdue or due soon", len(alarms))
        notify("deadline", {"requests": [_facts(deadline) for deadline in alarms]})


def current_deadlines() -> tuple[Deadline, ...]:
    """The deadlines of all requests as of now."""
    at = catalog()
    days = at.params().recurrence.alarm_days
    return deadlines(at.open_journal().requests(), request_states(), LAST_STATE, datetime.now(UTC), days)


def notify(event: str, facts: Mapping[str, Any]) -> None:
    """Run the user's command, if there is one, with `facts` on stdin."""
    command = catalog().params().recurrence.notify_command
    if command is None:
        return
    message = {"event": event, "project": str(catalog().root), "at": datetime.now(UTC).isoformat(), **facts}
    try:
        _run(command, json.dumps(message))
    except (OSError, subprocess.SubprocessError) as error:
        _log.error("recurrence.notify_command %r didn't take %r: %s", command[0], event, error)


def _run(command: Sequence[str], message: str) -> None:
    subprocess.run(
        command, input=message, text=True, cwd=catalog().root, timeout=_TIMEOUT_SECONDS, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _tell_of_run(event: str, flow: Flow[..., Any], flow_run: FlowRun, state: RunState[Any]) -> None:
    facts = {"flow": flow.name, "run": flow_run.name, "run_id": str(flow_run.id), "state": state.name}
    notify(event, facts | {"deadlines": _counts()})


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
