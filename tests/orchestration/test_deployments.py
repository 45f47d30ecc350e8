import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from amnesiac.errors import InputError, SettingsError
from amnesiac.operation import RecurrenceSettings
from flows.deployments import deployment

ROOT = Path(__file__).parents[2]
MODULE = """
import time
from prefect import flow
from prefect.states import Completed, State

@flow(flow_run_name="tick for {seconds} s")
def tick(seconds: float = 0.0) -> State:
    assert __name__ == "ticking.tick", __name__
    time.sleep(seconds)
    return Completed(name="Nothing to do", message="no pending request")
"""
SERVE = """
from amnesiac.settings import RecurrenceSettings
from flows.deployments import deployment, serve_deployments
from ticking.tick import tick

scheduled = deployment(tick, "scheduled", RecurrenceSettings(interval_seconds=4))
serve_deployments([scheduled, deployment(tick, "by hand", parameters={"seconds": 60})], poll_seconds=0.5)
print("left in good order")
"""


class Serving:
    """`serve_deployments` in a process of its own, with its output in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.log = folder / name
        path = os.pathsep.join([str(folder), str(ROOT)])
        command = [sys.executable, "-c", SERVE]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": path},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180  # a bound, no expectation: the machine may be busy
        while not done():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        assert self.process.wait(120) == 0, self.log.read_text()
        assert "left in good order" in self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    def end(self) -> None:
        """Leave nothing behind, whatever a failing test has left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Serving]]:
    package = tmp_path / "ticking"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tick.py").write_text(MODULE)
    with ExitStack() as stack:

        def start(name: str) -> Serving:
            serving = Serving(tmp_path, name)
            stack.callback(serving.end)
            return serving

        yield start


def runs(client: SyncPrefectClient, *states: str) -> list[FlowRun]:
    """Runs of the deployments in these states, the newest first."""
    found = [run for run in client.read_flow_runs() if run.deployment_id and run.state and run.state.name in states]
    return sorted(found, key=lambda run: str(run.expected_start_time), reverse=True)


def missed(client: SyncPrefectClient) -> list[UUID]:
    now = datetime.now(UTC)
    return [
        run.id for run in runs(client, "Scheduled", "Late") if run.expected_start_time and run.expected_start_time < now
    ]


def state(client: SyncPrefectClient, run: FlowRun) -> str | None:
    found = client.read_flow_run(run.id).state
    return found and found.name


def test_a_schedule_fires_and_what_a_stop_left_is_settled(api_url: str, serve: Callable[[str], Serving]) -> None:
    with get_client(sync_client=True) as client:
        serving = serve("first.log")
        serving.until(lambda: len(runs(client, "Nothing to do")) >= 2)
        done = runs(client, "Nothing to do")[0]
        assert (done.name, done.auto_scheduled) == ("tick for 0.0 s", True)
        assert done.state is not None and done.state.is_completed() and done.state.message == "no pending request"

        second = serve("second.log")
        assert second.process.wait(120) == 1
        assert f"process {serving.process.pid}, which holds" in second.log.read_text()

        by_hand = client.read_deployment_by_name("tick/by hand").id
        in_progress = client.create_flow_run_from_deployment(by_hand)
        serving.until(lambda: state(client, in_progress) == "Running")
        serving.stop(signal.SIGTERM)
        assert state(client, in_progress) == "Cancelled"

        killed = client.create_flow_run_from_deployment(by_hand, state=Running())
        while len(missed(client)) < 3:
            time.sleep(0.2)
        newest, *older = missed(client)
        due = client.read_flow_run(newest).expected_start_time
        serving = serve("third.log")
        serving.until(lambda: state(client, killed) == "Crashed")
        serving.until(lambda: not set(older) & {run.id for run in client.read_flow_runs()})
        # another may have come due while the process started: the newest of all is made up for
        assert [run for run in client.read_flow_runs() if run.auto_scheduled and run.expected_start_time >= due]
        serving.stop(signal.SIGINT)


def test_intervals_are_anchored_so_that_restarts_do_not_postpone_them() -> None:
    @flow
    def daily() -> None: ...

    schedules = [deployment(daily, "x", RecurrenceSettings(interval_seconds=86400)).schedules for _ in range(2)]
    assert schedules[0] == schedules[1]


def test_cron_comes_before_the_interval_and_none_means_on_demand() -> None:
    @flow
    def nightly() -> None: ...

    described = deployment(nightly, "x", RecurrenceSettings(cron="0 3 * * *"))
    assert [str(entry.schedule.cron) for entry in described.schedules or []] == ["0 3 * * *"]
    assert described.entrypoint == f"{nightly.__module__}.nightly"
    assert not deployment(nightly, "x").schedules


def test_a_malformed_cron_expression_is_named() -> None:
    @flow
    def nightly() -> None: ...

    with pytest.raises(SettingsError, match=r"recurrence\.cron '61 3 \* \* \*' in params\.yaml"):
        deployment(nightly, "x", RecurrenceSettings(cron="61 3 * * *"))


def test_a_flow_of_a_script_is_refused() -> None:
    @flow
    def lonely() -> None: ...

    lonely.__module__ = "__main__"
    with pytest.raises(InputError, match="flow 'lonely' is defined in the script"):
        deployment(lonely, "x")
