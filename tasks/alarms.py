"""Prefect automations on the server: a deletion run that failed, crashed or is late, and deadlines.

They are the second line: a run that fails tells `recurrence.notify_command` by its own hooks where it still can.
Automations are evaluated by the server, so they also see what no process of ours lives to tell. What they do: run the
deployment `alarm`, which tries the command (unless it took the message before), and, where `recurrence.notify_block`
names a notification or webhook block of Prefect, let the server send that itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, DoNothing, RunDeployment, SendNotification
from prefect.exceptions import ObjectNotFound

from amnesiac.errors import SettingsError
from amnesiac.operation import RecurrenceSettings
from tasks.notification import DEADLINE, project_resource

RUNS = {"failed": "prefect.flow-run.Failed", "crashed": "prefect.flow-run.Crashed", "late": "prefect.flow-run.Late"}
SILENCE = timedelta(seconds=120)
"""So long after its last heartbeat a run is called crashed: four of them are missing."""
_BEAT = "prefect.flow-run.heartbeat"
_WEBHOOK = "webhook"
_Action = RunDeployment | SendNotification | CallWebhook | DoNothing | ChangeFlowRunState


@dataclass(frozen=True)
class Alarms:
    """Who is told: by the deployment of the flow `alarm`, by a block, or both."""

    project: str
    settings: RecurrenceSettings

    async def register(self, client: PrefectClient, deployments: Sequence[UUID]) -> None:
        """Create this project's automations on the server, or bring them up to date; the last deployment is `alarm`.

        Those that somebody has switched off in the dashboard stay off. Raises SettingsError when the server has no
        block `recurrence.notify_block`.
        """
        *watched, alarm = deployments
        block = await _block(client, self.settings.notify_block) if self.settings.notify_block else None
        for event in (*RUNS, "deadline"):
            await _put(client, self._automation(event, watched, alarm, block))

    async def watch_heartbeats(self, client: PrefectClient, watched: Sequence[UUID]) -> None:
        """An automation that calls runs crashed which have stopped to beat: whoever carried them out is gone.

        (A serving process settles that itself when it starts again; a killed worker's runs nobody else would.)
        """
        wanted = AutomationCore(
            name=f"{project_resource()}: silent",
            description=f"Deletion of {self.project}: a run stopped to beat. Made by `amnesiac deploy`.",
            trigger=_of_silence(watched),
            actions=[
                ChangeFlowRunState(state=StateType.CRASHED, message="Its worker was killed, or can't be reached.")
            ],
        )
        await _put(client, wanted)

    def _automation(
        self, event: str, watched: Sequence[UUID], alarm: UUID, block: tuple[str, UUID] | None
    ) -> AutomationCore:
        trigger = _of_deadline() if event == "deadline" else _of_runs(RUNS[event], watched)
        return AutomationCore(
            name=f"{project_resource()}: {event}",
            description=f"Deletion of {self.project}: {_MEANING[event]}. Made by `amnesiac serve`.",
            trigger=trigger,
            actions=self._actions(event, alarm, block),
        )

    def _actions(self, event: str, alarm: UUID, block: tuple[str, UUID] | None) -> list[_Action]:
        found: list[_Action] = [_by_block(event, self.project, *block)] if block else []
        if self.settings.notify_command and not (block and event == "deadline"):
            found.append(_by_command(event, alarm))
        return found or [DoNothing()]


_MEANING = {
    "failed": "a run failed", "crashed": "a run's process was killed", "late": "a run didn't start in time",
    "deadline": "requests are overdue or due soon",
}  # fmt: skip


def _of_runs(event: str, watched: Sequence[UUID]) -> EventTrigger:
    return EventTrigger(
        expect={event},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "deployment",
                       "prefect.resource.id": [f"prefect.deployment.{number}" for number in watched]},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )  # fmt: skip


def _of_silence(watched: Sequence[UUID]) -> EventTrigger:
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return EventTrigger(
        after={_BEAT},
        expect={_BEAT, *ends},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "deployment",
                       "prefect.resource.id": [f"prefect.deployment.{number}" for number in watched]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )  # fmt: skip


def _of_deadline() -> EventTrigger:
    here = {"prefect.resource.id": project_resource()}
    return EventTrigger(expect={DEADLINE}, match=here, posture=Posture.Reactive, threshold=1)


def _by_command(event: str, alarm: UUID) -> RunDeployment:
    run = {} if event == "deadline" else {"run": "{{ event.resource.id }}"}
    return RunDeployment(source="selected", deployment_id=alarm, parameters={"event": event} | run)


def _by_block(event: str, project: str, kind: str, block: UUID) -> SendNotification | CallWebhook:
    """No field holds more than opaque ids and names of runs, which hold counts."""
    said = {"event": event, "project": project, "run": "{{ event.resource.id }}", "at": "{{ event.occurred }}"}
    if kind == _WEBHOOK:
        return CallWebhook(block_document_id=block, payload=json.dumps(said))
    body = "\n".join(f"{name}: {value}" for name, value in said.items())
    return SendNotification(block_document_id=block, subject=f"amnesiac: {_MEANING[event]}", body=body)


async def _block(client: PrefectClient, reference: str) -> tuple[str, UUID]:
    """A block's kind and id."""
    kind, _, name = reference.partition("/")
    try:
        return kind, (await client.read_block_document_by_name(name, kind)).id
    except ObjectNotFound as error:
        raise SettingsError(
            f"recurrence.notify_block is {reference!r}, and the Prefect server has no such block: create it "
            "(dashboard, Blocks; or `prefect block create`), or mend TYPE/NAME in params.yaml"
        ) from error


async def _put(client: PrefectClient, wanted: AutomationCore) -> None:
    """One automation of that name, as wanted; nothing is written where it is so already."""
    known = await client.read_automations_by_name(wanted.name)
    for other in known[1:]:
        await client.delete_automation(other.id)
    if not known:
        await client.create_automation(wanted)
        return
    kept = wanted.model_copy(update={"enabled": known[0].enabled})
    if _plain(known[0]) != _plain(kept):
        await client.update_automation(known[0].id, kept)


def _plain(automation: AutomationCore) -> dict[str, Any]:
    """What we decide of an automation, as JSON."""
    fields = {"name", "description", "enabled", "trigger", "actions"}
    plain: dict[str, Any] = json.loads(automation.model_dump_json(include=fields))
    for name in ("expect", "for_each", "after"):
        plain["trigger"][name] = sorted(plain["trigger"][name])
    return plain
