"""prefect.yaml and a real worker: `amnesiac deploy` registers what `amnesiac serve` makes, and it is carried out."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Pending, Running
from typer.testing import CliRunner

from amnesiac.errors import SettingsError
from amnesiac.operation import RecurrenceSettings
from amnesiac.settings import load_params
from flows.cli import app
from flows.deployed import project_deployments, read_prefect_yaml, refuse_disagreement
from flows.deploying import DeployError, deploy_project
from tasks.alarms import Alarms
from tasks.notification import project_resource

ROOT = Path(__file__).parents[2]
AMNESIAC = str(Path(sys.executable).with_name("amnesiac"))
SECTIONS = ("data", "model", "training", "capture", "unlearning", "evaluation")
RUN = f"prefect.flow-run.{uuid4()}"
NOTE = "import json, os, sys; open('told.jsonl', 'a').write(json.dumps([os.getcwd(), json.load(sys.stdin)]) + chr(10))"


@dataclass(frozen=True)
class Deployed:
    """A project whose deployments are registered, and what the command printed."""

    root: Path
    ids: dict[str, str]


@pytest.fixture(scope="module")
def deployed(api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    root = tmp_path_factory.mktemp("team") / "project"
    root.mkdir()
    shutil.copy(ROOT / "prefect.yaml", root)
    sections = {"seed": 0} | {name: {} for name in SECTIONS}
    settings = sections | {"recurrence": {"notify_command": [sys.executable, "-c", NOTE]}}
    (root / "params.yaml").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMNESIAC_PROJECT", str(root))
        done = CliRunner().invoke(app, ["deploy", "--json"])
    assert done.exit_code == 0, done.output
    return Deployed(root, json.loads(done.stdout))


def plain() -> dict[str, str]:
    """No other project's folder."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AMNESIAC_")}


@pytest.fixture
def client(api_url: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


def test_prefect_yaml_says_what_params_yaml_and_the_flows_say() -> None:
    params = load_params(ROOT / "params.yaml")
    refuse_disagreement(ROOT / "prefect.yaml", params.recurrence)
    entries = read_prefect_yaml(ROOT / "prefect.yaml")
    assert {entry["work_pool"]["name"] for entry in entries} == {"amnesiac"}
    writers = [entry for entry in entries if entry["name"] != "alarm"]
    assert [entry["concurrency_limit"] for entry in writers] == [{"limit": 1, "collision_strategy": "ENQUEUE"}] * 2
    assert all(entry["enforce_parameter_schema"] for entry in entries)


@pytest.mark.parametrize(
    ("recurrence", "told"),
    [
        (RecurrenceSettings(interval_seconds=3600), "'scheduled': schedules is .*86400.*by params.yaml .*3600"),
        (RecurrenceSettings(cron="0 3 * * *"), r"schedules is .*interval.*it is \[{'cron': '0 3"),
        (RecurrenceSettings(evaluate=False), "parameters is {'evaluate': True.*it is {'evaluate': False"),
    ],
)
def test_a_disagreement_is_named(recurrence: RecurrenceSettings, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        refuse_disagreement(ROOT / "prefect.yaml", recurrence)


def test_a_cron_expression_agrees_where_both_say_it(tmp_path: Path) -> None:
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    written["deployments"][0]["schedules"] = [{"cron": "0 3 * * *"}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(written))
    refuse_disagreement(tmp_path / "prefect.yaml", RecurrenceSettings(cron="0 3 * * *"))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    with pytest.raises(SettingsError, match=r"prefect\.yaml doesn't exist: take the repository's"):
        read_prefect_yaml(path)
    path.write_text("deployments: [{name: x}]")
    with pytest.raises(SettingsError, match=r"can't be read .*each with work_pool\.name"):
        read_prefect_yaml(path)
    path.write_text("deployments: [{work_pool: {name: a}}, {work_pool: {name: b}}]")
    with pytest.raises(SettingsError, match=r"names the work pools \['a', 'b'\]"):
        read_prefect_yaml(path)


def test_the_server_has_the_same_deployments_and_one_writer(deployed: Deployed, client: SyncPrefectClient) -> None:
    assert list(deployed.ids) == ["scheduled", "on-demand", "alarm"]
    for made in project_deployments(RecurrenceSettings()):
        found = client.read_deployment(UUID(deployed.ids[str(made.name)]))
        assert (found.name, found.entrypoint, found.parameters) == (made.name, made.entrypoint, made.parameters or {})
        assert [one.schedule for one in found.schedules] == [one.schedule for one in made.schedules or []]
        assert found.work_pool_name == "amnesiac" and found.enforce_parameter_schema
    batch = UUID(deployed.ids["scheduled"])
    with pytest.raises((PrefectHTTPStatusError, httpx.HTTPStatusError), match="409|422"):
        client.create_flow_run_from_deployment(batch, parameters={"person": "p1"})
    first, second = (client.create_flow_run_from_deployment(batch) for _ in range(2))
    taken = [client.set_flow_run_state(run.id, Pending()).state for run in (first, second)]
    try:
        assert [state and state.name for state in taken] == ["Pending", "AwaitingConcurrencySlot"]
    finally:
        for run in (second, first):
            client.delete_flow_run(run.id)


@pytest.mark.campaign  # it waits for the server's clock, half a minute
def test_a_run_whose_worker_was_killed_is_called_crashed(
    deployed: Deployed, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMNESIAC_PROJECT", str(deployed.root))
    monkeypatch.setattr("tasks.alarms.SILENCE", timedelta(seconds=10))
    watched = [UUID(number) for number in deployed.ids.values()]
    asyncio.run(watch(watched))
    event = {"event": "failed"}
    runs = [client.create_flow_run_from_deployment(watched[2], parameters=event, state=Running()) for _ in range(2)]
    for run in runs:
        beat(run.id, watched[2])
    deadline = time.monotonic() + 240  # a bound, no expectation: the machine may be busy
    while (state := client.read_flow_run(runs[0].id).state) is None or state.is_running():
        assert time.monotonic() < deadline
        beat(runs[1].id, watched[2])
        time.sleep(2)
    assert state.name == "Crashed" and state.message == "Its worker was killed, or can't be reached."
    other = client.read_flow_run(runs[1].id).state
    assert other is not None and other.is_running(), "it still beats"


async def watch(watched: list[UUID]) -> None:
    async with get_client() as client:
        for _ in range(2):  # registering again makes no second one
            await Alarms("team", RecurrenceSettings()).watch_heartbeats(client, watched)
        [found] = await client.read_automations_by_name(f"{project_resource()}: silent")
        assert found.enabled


def beat(run: UUID, deployment: UUID) -> None:
    """What Prefect's engine emits every `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` seconds."""
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": "run"},
        related=[{"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}],
    )


def test_a_worker_carries_out_a_run_in_the_projects_folder(deployed: Deployed, client: SyncPrefectClient) -> None:
    log = deployed.root / "worker.log"
    with log.open("w") as out, ExitStack() as stack:
        process = subprocess.Popen(
            [AMNESIAC, "worker", "--limit", "1"], cwd=deployed.root, env=plain(), stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        stack.callback(end, process)
        run = client.create_flow_run_from_deployment(
            UUID(deployed.ids["alarm"]), parameters={"event": "failed", "run": RUN}
        )
        deadline = time.monotonic() + 240  # a bound, no expectation: the machine may be busy
        while not ((state := client.read_flow_run(run.id).state) and state.is_final()):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        assert state.name == "Completed", f"{state.message}\n{log.read_text()}"
    [(folder, told)] = [json.loads(line) for line in (deployed.root / "told.jsonl").read_text().splitlines()]
    assert folder == str(deployed.root) and told["event"] == "failed" and told["run_id"] == RUN.rpartition(".")[2]
    assert not list((deployed.root / ".prefect").glob("storage/*")), "no result is persisted"


def end(process: subprocess.Popen[bytes]) -> None:
    """The worker and the runs that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_pool_of_another_type_is_named(deployed: Deployed) -> None:
    with pytest.raises(SettingsError, match="work pool 'amnesiac' is of type 'process': pass --type process"):
        asyncio.run(deploy_project(deployed.root, RecurrenceSettings(), "docker"))


@pytest.mark.campaign
def test_what_prefect_refuses_is_told(deployed: Deployed, tmp_path: Path) -> None:
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text()) | {"pull": "nothing of the kind"}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(DeployError, match=r"(?s)`prefect deploy --all` failed in .*pull"):
        asyncio.run(deploy_project(tmp_path, RecurrenceSettings()))


def test_without_a_server_worker_and_deploy_say_what_to_do(deployed: Deployed, tmp_path: Path) -> None:
    shutil.copy(deployed.root / "params.yaml", tmp_path)
    alone = {name: value for name, value in plain().items() if not name.startswith("PREFECT_")}
    done = subprocess.run([AMNESIAC, "worker"], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 1 and "no Prefect server is known here: set PREFECT_API_URL=" in done.stderr
