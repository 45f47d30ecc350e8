"""The project's deployments, and prefect.yaml, which describes the same for workers: the two must agree."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment

from amnesiac.errors import SettingsError
from amnesiac.operation import RecurrenceSettings
from flows.alarm import alarm
from flows.deployments import deployment
from flows.full_cycle import full_cycle
from flows.unlearn_batch import unlearn_batch

FILE = "prefect.yaml"


def project_deployments(recurrence: RecurrenceSettings) -> list[RunnerDeployment]:
    """What runs by itself or from the dashboard; the last one is `alarm`. Raises SettingsError (cron)."""
    batch = {"evaluate": recurrence.evaluate, "patient": True}
    return [
        deployment(unlearn_batch, "scheduled", recurrence, batch),
        deployment(full_cycle, "on-demand"),
        deployment(alarm, "alarm"),
    ]


def read_prefect_yaml(path: Path) -> list[dict[str, Any]]:
    """The deployments that a prefect.yaml describes; raises SettingsError."""
    try:
        found = yaml.safe_load(path.read_text())
        entries: list[dict[str, Any]] = [dict(entry) for entry in found["deployments"]]
        pools = [str(entry["work_pool"]["name"]) for entry in entries]
    except FileNotFoundError:
        raise SettingsError(f"{path} doesn't exist: take the repository's prefect.yaml into the project") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{path} can't be read ({type(error).__name__}: {error}): it needs `deployments`, each with work_pool.name"
        ) from error
    if len(set(pools)) > 1:
        raise SettingsError(f"{path} names the work pools {sorted(set(pools))}: name one, or deploy the others by hand")
    return entries


def refuse_disagreement(path: Path, recurrence: RecurrenceSettings) -> None:
    """Raise SettingsError unless prefect.yaml describes what `project_deployments` makes of params.yaml."""
    written = {str(entry.get("name")): _described(entry) for entry in read_prefect_yaml(path)}
    wanted = {str(one.name): _made(one) for one in project_deployments(recurrence)}
    if list(written) != list(wanted):
        raise SettingsError(f"{path} has the deployments {list(written)}, and there are {list(wanted)}: mend it")
    for name, facts in wanted.items():
        for field, value in facts.items():
            if written[name][field] != value:
                raise SettingsError(
                    f"{path}, deployment {name!r}: {field} is {written[name][field]}, and by params.yaml and the flows "
                    f"it is {value}: change one of the two, then deploy again"
                )


def _made(one: RunnerDeployment) -> dict[str, Any]:
    schedules = [_when(entry.schedule) for entry in one.schedules or []]
    return {"entrypoint": one.entrypoint, "parameters": one.parameters or {}, "schedules": schedules}


def _when(schedule: Any) -> dict[str, Any]:
    if isinstance(schedule, CronSchedule):
        return {"cron": schedule.cron}
    assert isinstance(schedule, IntervalSchedule)
    return {"interval": schedule.interval.total_seconds(), "anchor_date": schedule.anchor_date}


def _described(entry: dict[str, Any]) -> dict[str, Any]:
    schedules: Sequence[dict[str, Any]] = entry.get("schedules") or []
    found = {"entrypoint": entry.get("entrypoint"), "parameters": entry.get("parameters") or {}}
    return found | {"schedules": [_written_when(schedule) for schedule in schedules]}


def _written_when(schedule: dict[str, Any]) -> dict[str, Any]:
    if "anchor_date" in schedule:
        anchor = datetime.fromisoformat(str(schedule["anchor_date"]))
        return schedule | {"anchor_date": anchor, "interval": float(schedule.get("interval", 0))}
    return dict(schedule)
