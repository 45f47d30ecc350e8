"""Automations on a real server: made once, and a run that fails reaches the user's command and a webhook."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import Automation
from prefect.states import Crashed, Failed, State

from amnesiac.errors import SettingsError
from amnesiac.operation import RecurrenceSettings
from amnesiac.requests import Journal, RequestDraft
from tasks.alarms import Alarms
from tasks.notification import project_resource, tell_of_alarm, watch_deadlines

ROOT = Path(__file__).parents[2]
SECTIONS = ("data", "model", "training", "capture", "unlearning", "evaluation")
EVENTS = ("failed", "crashed", "late", "deadline")
MODULE = """
from prefect import flow

@flow
def break_down() -> None:
    raise ValueError("on purpose")
"""
SERVE = """
from flows.alarm import alarm
from tasks.alarms import Alarms
from flows.deployments import deployment, serve_deployments
from breaking.down import break_down
from tasks.catalog import catalog

served = [deployment(break_down, "breaking"), deployment(alarm, "breaking-alarm")]
serve_deployments(served, 0.5, Alarms("breaking", catalog().params().recurrence).register)
"""
NOTE = "import json, sys; open('told.jsonl', 'a').write(json.dumps(json.load(sys.stdin)) + chr(10))"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has settings and a flow that fails."""
    (tmp_path / "breaking").mkdir()
    (tmp_path / "breaking" / "__init__.py").touch()
    (tmp_path / "breaking" / "down.py").write_text(MODULE)
    sections = {"seed": 0} | {name: {} for name in SECTIONS}
    command = {"notify_command": [sys.executable, "-c", NOTE]}
    (tmp_path / "params.yaml").write_text(json.dumps(sections | {"recurrence": command}))
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    return tmp_path


@pytest.fixture
def serving(api_url: str, project: Path) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Serve the failing flow and the alarm; `until(something)` returns it once it is there."""
    log = project / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=project, stdout=out, stderr=out, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(project), str(ROOT)])},
        )  # fmt: skip

    def until(done: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 240  # a bound, no expectation: the machine may be busy
        while not (found := done()):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(1.0)
        return found

    yield until
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A block of the server, `webhook/NAME`, and what is posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/", posted
    listening.shutdown()
    listening.server_close()


def automations() -> dict[str, Automation]:
    with get_client(sync_client=True) as client:
        found = [one for name in EVENTS for one in client.read_automations_by_name(f"{project_resource()}: {name}")]
    assert len(found) == len({one.name for one in found})
    return {one.name.rpartition(" ")[2]: one for one in found}


def register(settings: RecurrenceSettings, deployments: list[UUID]) -> None:
    async def put() -> None:
        async with get_client() as client:
            await Alarms("breaking", settings).register(client, deployments)

    asyncio.run(put())


def told(project: Path) -> list[dict[str, Any]]:
    path = project / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def overdue_request(project: Path, block: str) -> None:
    """A request that should have been answered; the block is told, and no command is there."""
    columns = {"row": [0, 1], "sample_id": ["s0", "s1"], "subject_id": ["p0", "p1"], "label": [0, 0]}
    index = pd.DataFrame(columns | {"class_name": ["c", "c"], "split": ["train", "train"]})
    received = datetime.now(UTC) - timedelta(days=99)
    Journal(project / "pipeline_data/journal").file([RequestDraft("samples", ("s0",))], index, received=received)
    settings = json.loads((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(json.dumps(settings | {"recurrence": {"notify_block": block}}))


def test_a_failing_deployment_run_fires_and_so_does_what_no_process_lives_to_tell(
    project: Path, serving: Callable[[Callable[[], Any]], Any], webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    made = serving(lambda: found if len(found := automations()) == 4 else None)
    with get_client(sync_client=True) as client:
        ids = [client.read_deployment_by_name(name).id for name in ("break-down/breaking", "alarm/breaking-alarm")]
        run = client.create_flow_run_from_deployment(ids[0])
        [message] = serving(lambda: told(project))
        assert (message["event"], message["run_id"], message["state"]) == ("failed", str(run.id), "Failed")
        serving(lambda: list((project / ".prefect" / "told").glob("*")))
        assert tell_of_alarm("failed", f"prefect.flow-run.{run.id}") is False, "told once"

        settings = RecurrenceSettings(notify_command=(sys.executable, "-c", NOTE))
        register(settings, ids)
        assert automations() == made, "serving again changes nothing"

        url, posted = webhook
        Webhook(url=url, method="POST").save("alarms", overwrite=True)  # type: ignore[call-arg]
        client.pause_automation(made["late"].id)
        register(RecurrenceSettings(notify_block="webhook/alarms"), ids)
        changed = automations()
        assert {name: one.id for name, one in changed.items()} == {name: one.id for name, one in made.items()}
        assert [changed[name].enabled for name in EVENTS] == [True, True, False, True], "switched off by somebody"
        late: State[Any] = State(type=StateType.SCHEDULED, name="Late")
        sent = [client.create_flow_run_from_deployment(ids[0], state=state).id for state in (Failed(), Crashed(), late)]
        other = client.create_flow_run_from_deployment(ids[1], parameters={"event": "late"}, state=Failed())
        serving(lambda: len(posted) >= 2)
        client.resume_automation(changed["late"].id)
        client.set_flow_run_state(sent[2], Failed())
        serving(lambda: len(posted) >= 3)

        overdue_request(project, "webhook/alarms")
        watch_deadlines.fn()
        serving(lambda: len(posted) >= 4)
    assert {(one["event"], one["run"]) for one in posted} == {
        ("failed", f"prefect.flow-run.{sent[0]}"), ("crashed", f"prefect.flow-run.{sent[1]}"),
        ("failed", f"prefect.flow-run.{sent[2]}"), ("deadline", project_resource()),
    }, f"neither the one that was switched off, nor alarms about alarms ({other.id})"  # fmt: skip
    assert all(one["project"] == "breaking" for one in posted)


def test_a_block_that_the_server_lacks_is_named(api_url: str, project: Path) -> None:
    with pytest.raises(SettingsError, match="notify_block is 'slack-webhook/nobody', and the Prefect server has no"):
        register(RecurrenceSettings(notify_block="slack-webhook/nobody"), [UUID(int=1), UUID(int=2)])
