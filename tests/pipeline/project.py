"""A project folder in which real commands run: `amnesiac`, `dvc` and `git` as subprocesses."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from flows.cli import app

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARAMS = """
seed: 0
data: {source: mnist-5k, limit: 300}
model: {factory: mlp, options: {hidden: [16]}}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
capture: {methods: [per-sample-delta]}
unlearning: {method: per-sample-delta, repair: {epochs: 0.5}}
evaluation: {}
recurrence: {interval_seconds: 6}
erasure: {grace_days: 9}
"""
# What would point the commands at another project, server or repository
FOREIGN = ("PREFECT_", "DVC_", "AMNESIAC_", "COV", "GIT_DIR", "GIT_INDEX", "GIT_WORK")
NO_REQUESTS = {"count": 0, "sha256": hashlib.sha256(b"").hexdigest()}


@dataclass(frozen=True)
class Call:
    """A command to run in a folder, and the exit code that it must end with."""

    words: tuple[str, ...]
    folder: Path
    environment: dict[str, str]
    code: int

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@dataclass(frozen=True)
class Done:
    """What a command has printed."""

    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    """`server`: what PREFECT_API_URL says; None leaves it to the command to find or start a server."""

    root: Path
    server: str | None = None

    @property
    def data(self) -> Path:
        return self.root / "pipeline_data"

    def amnesiac(self, *arguments: str, code: int = 0) -> Call:
        return self._call("amnesiac", *arguments, code=code)

    def dvc(self, *arguments: str, code: int = 0) -> Call:
        return self._call("dvc", *arguments, code=code)

    def git(self, *arguments: str) -> str:
        """Run git at once and return what it prints."""
        [done] = finish(self._call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments, code=0))
        return done.out.strip()

    def commit(self, message: str) -> str:
        """Commit everything that git doesn't ignore; the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def without_server(self) -> "Project":
        return replace(self, server=None)

    def copy(self, root: Path, server: str | None = None) -> "Project":
        """The same project elsewhere, with a copied Prefect database (migrating an empty one takes 10 s)."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(".prefect"))
        (root / ".prefect").mkdir(mode=0o700)
        with (
            closing(sqlite3.connect(self.root / ".prefect/prefect.db")) as old,
            closing(sqlite3.connect(root / ".prefect/prefect.db")) as new,
        ):
            old.backup(new)
        return Project(root, server)

    def edit(self, old: str, new: str) -> None:
        """Change params.yaml."""
        text = (self.root / "params.yaml").read_text()
        assert text.count(old) == 1, f"{old!r} in {text}"
        (self.root / "params.yaml").write_text(text.replace(old, new))

    def weights(self) -> dict[str, str]:
        """SHA-256 of every file of finished weights."""
        found = [
            path for name in ("model", "unlearned", "retrained") for path in self.data.glob(f"{name}/*.safetensors")
        ]
        return {str(path.relative_to(self.data)): sha256(path) for path in found}

    def version(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "unlearned/version.json").read_text())
        return found

    def _call(self, program: str, *arguments: str, code: int) -> Call:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        ours["PATH"] = f"{BIN}{os.pathsep}{ours['PATH']}"
        if self.server is not None:
            ours["PREFECT_API_URL"] = self.server
        return Call((program, *arguments), self.root, ours, code)


def create(root: Path) -> Project:
    """A project as a clone of the repository has it, with smaller settings: git, DVC, no requests."""
    (root / "pipeline_data").mkdir(parents=True)
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "params.yaml").write_text(PARAMS)
    (root / "pipeline_data/requests.json").write_text(json.dumps(NO_REQUESTS))
    project = Project(root)
    project.git("init", "--quiet")
    finish(project.dvc("init", "--quiet"))
    shutil.copy(REPOSITORY / ".dvc/config", root / ".dvc/config")
    project.commit("begin")
    return project


def finish(*calls: Call) -> list[Done]:
    """Run commands at the same time, wait for all, and check their exit codes."""
    running = [call.start() for call in calls]
    try:
        printed = [process.communicate(timeout=500) for process in running]
    finally:
        for process in running:
            kill(process)
    for call, process, (out, err) in zip(calls, running, printed, strict=True):
        assert process.returncode == call.code, f"{call.words} ended with {process.returncode}:\n{out}\n{err}"
        assert call.code == 0 or "Traceback" not in err.rpartition("error: ")[2], err
    return [Done(*texts) for texts in printed]


def run(project: Project, *words: str) -> Result:
    """A command that needs no server, in this process, which has imported everything already (6 CPU seconds less)."""
    return CliRunner().invoke(app, words, env={"AMNESIAC_PROJECT": str(project.root)})


def file(project: Project, *words: str) -> None:
    """`amnesiac request add` in this process."""
    said = run(project, "request", "add", *words)
    assert said.exit_code == 0, said.output


def kill(process: subprocess.Popen[str]) -> None:
    """End a command and what it has started (`dvc repro` starts `amnesiac`), if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ask(server: str, path: str, **body: Any) -> Any:
    """POST to Prefect's API, e.g. `ask(url, "flow_runs/filter")`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{server}/csrf-token?client=tests", timeout=30) as response:
        headers = {"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": json.load(response)["token"]}
    content = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/{path}", json.dumps(body).encode(), content | headers)
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def flow_runs(server: str) -> list[dict[str, Any]]:
    """All flow runs that a server knows and that were started, the oldest first."""
    runs = ask(server, "flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
    return [run for run in runs if run["start_time"] is not None]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
