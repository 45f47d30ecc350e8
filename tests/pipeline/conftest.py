"""One small project that has run the whole pipeline once, against one real Prefect server, for all tests here."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from amnesiac.receipts import Chain, ensure_signing_key
from amnesiac.requests import Batches, Journal
from tasks.prefect_server import free_port
from tests.pipeline.project import Done, Project, create, finish, flow_runs
from tests.receipts.conftest import facts


@dataclass(frozen=True)
class Cycled:
    """The project after `amnesiac cycle`, what that printed, the commit that holds its state, and ids of its runs."""

    project: Project
    printed: Done
    commit: str
    runs: frozenset[str]


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A new project and its Prefect server, run by `amnesiac dashboard`."""
    project = create(tmp_path_factory.mktemp("pipeline") / "project")
    port = free_port()
    dashboard = project.amnesiac("dashboard", "--port", str(port)).start()
    try:
        assert dashboard.stdout is not None
        line = dashboard.stdout.readline()
        assert line.startswith(f"dashboard: http://127.0.0.1:{port}"), line or dashboard.communicate()
        yield Project(project.root, f"http://127.0.0.1:{port}/api")
    finally:
        dashboard.terminate()
        dashboard.communicate(timeout=180)


@pytest.fixture(scope="session")
def cycled(started: Project) -> Cycled:
    """The whole pipeline, once: five random people and a class are forgotten."""
    assert started.server is not None
    others = {run["id"] for run in flow_runs(started.server)}  # other projects may use the server too
    [printed] = finish(started.amnesiac("cycle", "--random-people", "5", "--forget-class", "3"))
    own = frozenset(run["id"] for run in flow_runs(started.server)) - others
    return Cycled(started, printed, started.commit("first batch"), own)


@pytest.fixture
def copied(cycled: Cycled, tmp_path: Path) -> Callable[[str], Project]:
    """Copies of the finished project, to change at will; they share its server."""
    return lambda name: cycled.project.copy(tmp_path / name, cycled.project.server)


@pytest.fixture
def shown(cycled: Cycled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy for what only reads: a batch is published, not erased; its first request has a receipt (really signed)."""
    root = tmp_path / "shown"
    shutil.copytree(cycled.project.root, root, ignore=shutil.ignore_patterns(".prefect", ".dvc", ".git"))
    copy = Project(root, cycled.project.server)
    monkeypatch.setenv("AMNESIAC_PROJECT", str(root))
    [batch] = Batches(Journal(copy.data / "journal")).history()
    chain = Chain(copy.data / "receipts")
    chain.append(facts(batch.request_ids[0]), ensure_signing_key(copy.data / "signing", chain.public))
    from tasks.archiving import archived_reports

    assert archived_reports() == [1], "the report names the receipt"
    assert archived_reports() == [], "and is written once"
    return copy
