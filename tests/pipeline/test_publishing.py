"""Batches through the command line: what is published, seen, killed, taken back, told and waited for."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from amnesiac.requests import Batches, Journal
from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Project, file, finish, flow_runs, kill, run

NOTE = "import json, sys; open('told.jsonl', 'a').write(json.dumps(json.load(sys.stdin)) + chr(10))"
NOTIFY = f"notify_command: {json.dumps([sys.executable, '-c', NOTE])}"

SCHEDULED = """
from pathlib import Path
from tasks.prefect_environment import configure
configure(Path.cwd())
from flows.unlearn_batch import unlearn_batch
unlearn_batch(evaluate=False, patient=True)
"""


def light(project: Project, root: Path) -> Project:
    """A copy for commands that need neither Prefect nor DVC."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns(".prefect", ".dvc", ".git"))
    return Project(root, project.server)


def head(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.data / "published/HEAD.json").read_text())["head"]
    return found


def scheduled(project: Project) -> None:
    """A run as the schedule starts it: no command line around it."""
    environment = project.amnesiac().environment | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", SCHEDULED], cwd=project.root, env=environment, check=True, timeout=300)


def told(project: Project) -> list[dict[str, Any]]:
    path = project.root / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_the_cycle_published(cycled: Cycled) -> None:
    project, version = cycled.project, cycled.project.version()
    folder = project.data / "published/versions" / head(project)["version"]
    assert (folder / "model.safetensors").read_bytes() == (
        project.data / "unlearned" / version["published"]
    ).read_bytes()
    found = json.loads(run(project, "status", "--json").output)
    assert found["requests"] == {"PUBLISHED": 2}
    assert (found["pending"], found["overdue"], found["due_soon"]) == (0, [], [])
    assert [one["alarm"] for one in found["deadlines"]] == ["open", "open"], (
        "answered by a receipt, after the grace time"
    )
    assert [(one["number"], one["state"]) for one in found["resting"]] == [(1, "PUBLISHED")]
    assert found["unfinished"] is None
    assert found["head"]["requests"] == 2
    assert found["head"]["file"] == str(folder / "model.safetensors")
    [batch] = Batches(Journal(project.data / "journal")).history()
    assert [event.state for event in batch.events] == ["RECEIVED", "PLANNED", "STAGED", "EVALUATED", "PUBLISHED"]
    metrics = json.loads((project.data / "metrics.json").read_text())
    assert batch.facts("EVALUATED")["forget_accuracy"] == metrics["unlearned"]["forget_accuracy"]
    planned = dict(batch.facts("PLANNED"))
    runs = {run["id"] for run in flow_runs(str(project.server)) if run["name"].startswith("unlearn 2")}
    assert planned.pop("run") in runs  # other tests' projects may share the server
    assert planned == {"requests": 2, "samples": version["samples"], "not_trained": version["not_trained"]}
    shown = run(project, "status").output
    assert "2 PUBLISHED; 0 pending" in shown and f"version {found['head']['version'][:12]}" in shown
    assert "predecessor none" in shown and "unfinished: none" in shown


def test_deadlines_show_and_an_overdue_request_is_exit_code_1(cycled: Cycled, tmp_path: Path) -> None:
    project, now = light(cycled.project, tmp_path / "late"), datetime.now(UTC)
    for days, name in ((27, "near"), (400, "late"), (1, "new")):
        received = (now - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S")
        words = ("request", "add", "--class", "5", "--id", name, "--received", received)
        assert run(project, *words).exit_code == 0
    said = run(project, "status", "--json")
    found = json.loads(said.output)
    assert (said.exit_code, found["overdue"], found["due_soon"]) == (1, ["late"], ["near"])
    assert [(one["request_id"], one["alarm"]) for one in found["deadlines"][2:]] == [
        ("near", "due soon"), ("late", "overdue"), ("new", "open"),
    ]  # fmt: skip
    assert found["requests"] == {"PUBLISHED": 2, "RECEIVED": 3}
    assert "OVERDUE: late" in run(project, "status").output
    future = run(project, "request", "add", "--class", "5", "--received", "2999-01-01")
    assert (future.exit_code, "lies in the future" in future.output) == (2, True)


def test_status_before_anything_was_published(cycled: Cycled, tmp_path: Path) -> None:
    project = light(cycled.project, tmp_path / "fresh")
    shutil.rmtree(project.data / "published")
    shutil.rmtree(project.data / "journal")
    assert json.loads(run(project, "status", "--json").output)["head"] is None
    assert "nothing is published yet" in run(project, "status").output
    assert json.loads(run(project, "history", "--json").output) == {"versions": []}
    rollback = run(project, "rollback")
    assert (rollback.exit_code, "nothing can be rolled back" in rollback.output) == (2, True)
    assert "nothing was left unfinished" in run(project, "recover").output


def test_a_damaged_head_stops_every_command_with_a_reason(cycled: Cycled, tmp_path: Path) -> None:
    project = light(cycled.project, tmp_path / "damaged")
    path = project.data / "published/HEAD.json"
    path.write_text(path.read_text().replace('"batch": 1', '"batch": 2'))
    for words in (("status",), ("history",), ("recover",), ("rollback",), ("request", "add", "--class", "5")):
        said = run(project, *words)
        assert (said.exit_code, "HEAD.json was altered: its own digest differs" in said.output) == (1, True), words


def test_killed_while_it_runs_the_next_run_is_not_blocked_and_ends_alike(
    cycled: Cycled, copied: Callable[[str], Project]
) -> None:
    killed, whole, server = copied("killed"), copied("whole"), cycled.project.server
    assert server is not None
    batches = Batches(Journal(killed.data / "journal"), "PUBLISHED")
    received = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")  # the pointer, and so the version's id, depends on it
    for project in (killed, whole):
        file(project, "--random", "4", "--seed", "3", "--id", "next", "--received", received)
    published = head(killed)
    publishing = killed.amnesiac("publish").start()
    try:
        deadline = time.monotonic() + 300
        while not (unfinished := batches.current()):
            assert publishing.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        kill(publishing)
    assert publishing.returncode == -signal.SIGKILL
    assert head(killed) == published
    seen = json.loads(run(killed, "status", "--json").output)
    assert seen["unfinished"]["number"] == unfinished.number == 2
    assert "`amnesiac recover`" in run(killed, "status").output
    recovered = finish(killed.amnesiac("recover", "--json"))[0].json()
    assert recovered["action"] == "rolled back"
    assert batches.current() is None
    assert json.loads(run(killed, "status", "--json").output)["requests"] == {"PUBLISHED": 2, "RECEIVED": 1}
    finish(killed.amnesiac("publish", "--json"), whole.amnesiac("publish", "--json"))
    assert head(killed)["version"] == head(whole)["version"] != published["version"]
    assert head(killed)["predecessor"] == published["version"]

    versions = json.loads(run(whole, "history", "--json").output)["versions"]
    assert [(one["requests"], one["head"], one["kept"]) for one in versions] == [(2, False, True), (3, True, True)]
    back = json.loads(run(whole, "rollback", "--json").output)
    assert (back["version"], back["requests"]) == (published["version"], 2)
    assert json.loads(run(whole, "status", "--json").output)["requests"] == {"PUBLISHED": 2, "RECEIVED": 1}
    listed = run(whole, "history").output
    assert "ROLLED_BACK" in listed and "HEAD" in listed


def test_a_scheduled_run_waits_for_enough_requests_but_not_for_ever(
    cycled: Cycled, copied: Callable[[str], Project]
) -> None:
    project, server = copied("patient"), cycled.project.server
    assert server is not None
    project.edit("interval_seconds: 6", "interval_seconds: 6, minimum_requests: 3, maximum_wait_seconds: 7200")
    received = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    file(project, "--random", "4", "--seed", "3", "--received", received)

    def state_of_scheduled() -> dict[str, Any]:
        known = {run["id"] for run in flow_runs(server)}
        scheduled(project)
        mine = [r for r in flow_runs(server) if r["id"] not in known and r["parameters"].get("patient")]
        state: dict[str, Any] = mine[-1]["state"]
        return state

    waited = state_of_scheduled()
    assert waited["name"] == "Waiting"
    assert waited["message"] == "1 requests are pending, a scheduled batch waits for 3"
    assert len(head(project)["requests"]) == 2
    project.edit("maximum_wait_seconds: 7200", "maximum_wait_seconds: 1800")
    assert state_of_scheduled()["name"] == "Completed"
    assert len(head(project)["requests"]) == 3
    [batch] = [b for b in Batches(Journal(project.data / "journal")).history() if b.number == 2]
    assert batch.facts("EVALUATED") == {"evaluated": False}


def test_failures_and_deadlines_are_told_without_an_id_of_a_person(copied: Callable[[str], Project]) -> None:
    project = copied("told")
    project.edit("interval_seconds: 6", f"interval_seconds: 6, {NOTIFY}")
    late = (datetime.now(UTC) - timedelta(days=50)).strftime("%Y-%m-%dT%H:%M:%S")
    file(project, "--random", "4", "--seed", "3", "--id", "late", "--received", late)
    ledger = project.data / "ledger/manifest.json"
    whole = ledger.read_text()
    write_json(ledger, json.loads(whole) | {"sha256": "0"})
    finish(project.amnesiac("publish", code=1))
    [failure] = told(project)
    assert (failure["event"], failure["flow"], failure["state"]) == ("failed", "unlearn_batch", "Failed")
    assert failure["deadlines"] == {"open": 2, "overdue": 1}
    ledger.write_text(whole)
    finish(project.amnesiac("publish"))
    [late_one] = told(project)[1]["requests"]
    assert (late_one["request_id"], late_one["state"]) == ("late", "PUBLISHED"), "answered by its receipt, not before"
    file(project, "--random", "2", "--seed", "4", "--id", "soon", "--received", late)
    project.edit("interval_seconds: 6", "interval_seconds: 6, minimum_requests: 9, maximum_wait_seconds: 1.0e+9")
    scheduled(project)
    deadline = told(project)[-1]
    assert deadline["event"] == "deadline"
    assert [(one["request_id"], one["alarm"]) for one in deadline["requests"]] == [
        ("late", "overdue"), ("soon", "overdue"),
    ]  # fmt: skip
    assert "mnist-5k" not in (project.root / "told.jsonl").read_text()
