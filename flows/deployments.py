"""When flows run by themselves: deployments with a schedule, served by one process, one run at a time."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from amnesiac.errors import InputError, SettingsError
from amnesiac.operation import RecurrenceSettings
from tasks.locking import single_writer

# Interval runs lie at whole multiples after this moment. Counted from the registration (Prefect's default), a daily
# run would never come where the serving process is restarted once a day.
_ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)


def deployment(
    flow: Flow[..., Any],
    name: str,
    recurrence: RecurrenceSettings | None = None,
    parameters: dict[str, Any] | None = None,
) -> RunnerDeployment:
    """Describe a deployment of `flow`; without `recurrence` it runs on demand only. Cron times are UTC.

    Each run is a process of its own that imports the flow as `package.module.function`, so its package must be
    installed, or stand in the folder served from. (By file path, Prefect's default, the module would exist twice.)
    Raises InputError for a flow of a script, SettingsError for a malformed cron expression.
    """
    if flow.__module__ == "__main__":
        raise InputError(
            f"flow {flow.name!r} is defined in the script that is being run, where no other process can import it: "
            "move it to a module and import it from there"
        )
    return RunnerDeployment.from_flow(
        flow,
        name=name,
        schedule=None if recurrence is None else _schedule(recurrence),
        parameters=parameters,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


Registering = Callable[[PrefectClient, Sequence[UUID]], Awaitable[None]]


def serve_deployments(
    deployments: Sequence[RunnerDeployment], poll_seconds: float = 5.0, register: Registering | None = None
) -> None:
    """Register the deployments and run what is due, one run at a time, until SIGTERM or Ctrl-C; blocks.

    First cleans up after a process that was killed: runs it left pending or running become Crashed, and of the
    scheduled runs that were missed only the newest is made up for. Schedules stay active when this ends. A run in
    progress is ended and becomes Cancelled (`prefect.serve` would leave it Running for ever).
    `register` is called with the ids of the deployments once the server knows them (`Alarms.register`).
    Raises WriterBusy when another process of this project serves. Needs a server (`tasks.prefect_server.local_server`).
    """
    with single_writer(Path(os.environ["PREFECT_HOME"]) / "serving"):
        asyncio.run(_serve(deployments, poll_seconds, register))


async def refuse_other_parameters(client: PrefectClient, deployment_id: UUID) -> None:
    """Let the server refuse runs whose parameters the flow doesn't have: it would store them, whatever they hold.

    (It checks types only, and the client's model of a schema can't say that no others are allowed.)
    """
    place = {"id": str(deployment_id)}
    found = (await client.request("GET", "/deployments/{id}", path_params=place)).json()
    schema = found["parameter_openapi_schema"] | {"additionalProperties": False}
    await client.request("PATCH", "/deployments/{id}", path_params=place, json={"parameter_openapi_schema": schema})


def _schedule(recurrence: RecurrenceSettings) -> Schedule:
    if recurrence.cron is None:
        return Interval(timedelta(seconds=recurrence.interval_seconds), anchor_date=_ANCHOR)
    try:
        return Cron(recurrence.cron)
    except ValueError as error:
        raise SettingsError(f"recurrence.cron {recurrence.cron!r} in params.yaml: {error}") from error


async def _serve(deployments: Sequence[RunnerDeployment], poll_seconds: float, register: Registering | None) -> None:
    stopped = asyncio.Event()
    _stop_by_signal(stopped)
    runner = Runner(limit=1, pause_on_shutdown=False, query_seconds=poll_seconds)
    ids = [await runner.aadd_deployment(deployment) for deployment in deployments]
    async with get_client() as client:
        for number in ids:
            await refuse_other_parameters(client, number)
        of_ours = DeploymentFilter(id=DeploymentFilterId(any_=ids))
        await _crash_interrupted(client, of_ours)
        await _drop_missed(client, of_ours)
        if register is not None:
            await register(client, ids)
    serving = asyncio.create_task(runner.start())
    await asyncio.sleep(0)  # the runner sets its own SIGTERM handler in its first step, which kills without a word
    _stop_by_signal(stopped)
    await _until_stopped(runner, serving, stopped)


def _stop_by_signal(stopped: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)


async def _until_stopped(runner: Runner, serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        await serving  # it failed: raises why
    elif runner.started:
        await runner.astop()
        await serving
    else:
        serving.cancel()


async def _crash_interrupted(client: PrefectClient, of_ours: DeploymentFilter) -> None:
    """Nobody else serves (we hold the lock), so what looks active was left by a process that was killed."""
    for run in await _due_runs(client, of_ours, "Pending", "Submitting", "Running", "Cancelling"):
        state: State[Any] = Crashed(message="The process that served this run ended before it.")
        await client.set_flow_run_state(run.id, state, force=True)


async def _drop_missed(client: PrefectClient, of_ours: DeploymentFilter) -> None:
    """Prefect keeps up to 100 missed runs of each schedule and would work through them one by one."""
    made_up: set[UUID | None] = set()
    for run in await _due_runs(client, of_ours, "Scheduled", "Late"):
        if run.auto_scheduled and run.deployment_id in made_up:
            await client.delete_flow_run(run.id)
        elif run.auto_scheduled:
            made_up.add(run.deployment_id)


async def _due_runs(client: PrefectClient, of_ours: DeploymentFilter, *states: str) -> list[FlowRun]:
    """Return the runs in one of these states that should have started by now, the newest first (at most 200)."""
    chosen = FlowRunFilter(
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=list(states))),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    newest_first = FlowRunSort.EXPECTED_START_TIME_DESC
    return await client.read_flow_runs(deployment_filter=of_ours, flow_run_filter=chosen, sort=newest_first, limit=200)
