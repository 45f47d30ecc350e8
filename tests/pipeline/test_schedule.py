"""`amnesiac serve`: a schedule that fires, batches that it finds, and an end that leaves nothing behind."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.prefect_server import free_port
from tests.pipeline.conftest import Cycled
from tests.pipeline.project import ask, file, finish


def processes_in(folder: Path) -> list[str]:
    """Ids of the processes that work in a folder or below it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended, or isn't ours
                if (process / "cwd").readlink().is_relative_to(folder):
                    found.append(process.name)
    return found


def wait_for(serving: subprocess.Popen[str], log: Path, done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300  # a bound, no expectation: the machine may be busy
    while True:
        assert serving.poll() is None, log.read_text()
        with suppress(OSError):  # the server isn't up yet
            if found := done():
                return found
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)


def test_a_schedule_applies_what_is_pending_in_batches(cycled: Cycled, tmp_path: Path) -> None:
    project, port, log = cycled.project.copy(tmp_path / "project"), free_port(), tmp_path / "serve.log"
    server = f"http://127.0.0.1:{port}/api"
    page = free_port()
    call = project.amnesiac("serve", "--port", str(port), "--poll", "1", "--ui", "--ui-port", str(page))
    with log.open("w") as out:
        serving = subprocess.Popen(
            call.words, cwd=call.folder, env=call.environment, stdout=out, stderr=out, text=True, start_new_session=True
        )

    def scheduled(state: str) -> list[dict[str, Any]]:
        runs = ask(server, "flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
        return [run for run in runs if run["auto_scheduled"] and run["state"]["name"] == state]

    def batch(number: int) -> Callable[[], list[dict[str, Any]]]:
        return lambda: found if len(found := scheduled("Completed")) == number else []

    try:
        first = wait_for(serving, log, lambda: scheduled("Nothing to do"))[0]
        assert first["name"] == "unlearn 0 requests, per-sample-delta"
        assert first["state"]["message"] == "no request is pending, and nothing else has changed"
        weights = [project.weights()["unlearned/model.safetensors"]]
        for number in (1, 2):
            file(project, "--random", "3", "--seed", str(number))
            run = wait_for(serving, log, batch(number))[-1]
            assert run["parameters"] == {"evaluate": True, "patient": True}
            assert len(project.version()["requests"]) == 2 + number
            weights.append(project.weights()["unlearned/model.safetensors"])
        assert len(set(weights)) == 3, "each batch made another model"
        evaluations = [
            run
            for run in ask(server, "flow_runs/filter")
            if run["name"].startswith("evaluate per-sample-delta, ") and run["start_time"] > first["start_time"]
        ]
        assert [run["state"]["name"] for run in evaluations] == ["Completed", "Completed"]
        assert not scheduled("Failed") + scheduled("Crashed")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{page}/api/status", timeout=60
        ) as answer:
            seen = json.load(answer)
        assert [(one["number"], one["verdict"] is not None) for one in seen["batches"]] == [
            (3, True), (2, True), (1, True),
        ]  # fmt: skip
        assert seen["head"]["requests"] == 4
        on_demand = ask(server, "deployments/filter", deployments={"name": {"any_": ["on-demand"]}})
        assert [deployment["schedules"] for deployment in on_demand] == [[]]
    finally:
        serving.terminate()
        serving.wait(180)
    assert serving.returncode == 0, log.read_text()
    assert processes_in(project.root) == []
    assert finish(project.dvc("status"))[0].out.strip().endswith("up to date.")
