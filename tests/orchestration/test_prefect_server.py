import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from tasks.prefect_server import ServerError, free_port, local_server, running_server

ROOT = Path(__file__).parents[2]
HOLD = """
import time
from tasks.prefect_server import free_port, local_server
with local_server(free_port()) as url:
    print(url, flush=True)
    time.sleep(120)
"""


def get_json(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url) as response:
        found: dict[str, object] = json.load(response)
        return found


def test_the_dashboard_calls_the_port_that_was_chosen(api_url: str) -> None:
    assert get_json(api_url.removesuffix("/api") + "/ui-settings")["api_url"] == api_url


def test_a_server_that_answers_is_used_instead_of_a_second_one(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_server(free_port()) as url:
        assert url == api_url
    assert os.environ["PREFECT_API_URL"] == api_url
    monkeypatch.delenv("PREFECT_API_URL")
    assert running_server() == api_url, "found again by other processes of the project"


def test_a_record_that_outlived_its_server_is_not_trusted(
    api_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    (tmp_path / "server.json").write_text(json.dumps({"api_url": api_url, "pid": ended.pid}))
    assert running_server() is None, "another project's server answers at that port"


def test_an_api_that_does_not_answer_is_named(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", silent)
    with pytest.raises(ServerError, match=f"PREFECT_API_URL is {silent}, but nothing answers"), local_server():
        pass


def test_a_taken_port_is_named(api_url: str, other_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(other_home))
    port = int(api_url.removesuffix("/api").rsplit(":", 1)[1])
    with pytest.raises(ServerError, match=rf"port {port} on 127\.0\.0\.1 can't be used"), local_server(port):
        pass


def test_a_server_that_fails_shows_the_end_of_its_log(other_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(other_home))
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    told = r"(?s)ended with exit code 1\. Last lines of .*server\.log:.*nonsense"
    with pytest.raises(ServerError, match=told), local_server(free_port()):
        pass
    assert not (other_home / "server.json").exists()


def test_sigterm_to_its_owner_ends_the_server(other_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(other_home))
    owner = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    server = json.loads((other_home / "server.json").read_text())["pid"]
    assert running_server() == url
    owner.terminate()
    owner.communicate(timeout=180)
    assert owner.returncode == 128 + 15
    assert running_server() is None
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_what_the_core_logs_in_a_flow_shows_in_the_dashboard(api_url: str) -> None:
    @flow
    def speaking() -> None:
        logging.getLogger("amnesiac.training").info("epoch 3 of 4")

    speaking()
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 120
        while not (found := [log for log in client.read_logs() if log.message == "epoch 3 of 4"]):
            assert time.monotonic() < deadline, "the log line never arrived"
            time.sleep(0.2)
    assert found[0].flow_run_id is not None


def test_a_failed_flow_leaves_no_pickle(api_url: str) -> None:
    @flow
    def failing() -> None:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        failing()
    stored = list((Path(os.environ["PREFECT_HOME"]) / "storage").iterdir())
    assert "no such model" in [json.loads(file.read_text())["message"] for file in stored], "all of them are JSON"
