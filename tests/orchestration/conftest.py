"""A real Prefect server for the tests, in a private home that is set before anything imports Prefect."""

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tasks.prefect_environment import configure

_PROJECT = Path(tempfile.mkdtemp(prefix="amnesiac-orchestration-"))
atexit.register(shutil.rmtree, _PROJECT, ignore_errors=True)
os.environ["PREFECT_SERVER_API_AUTH_STRING"] = "tester:a password for tests"  # as an exposed server must have
configure(_PROJECT)


@pytest.fixture(scope="session")
def api_url() -> Iterator[str]:
    from tasks.prefect_server import free_port, local_server

    with local_server(free_port()) as url:
        yield url


@pytest.fixture
def other_home(api_url: str, tmp_path: Path) -> Path:
    """Another project's Prefect home. A copied database spares the 10 s that migrating an empty one takes."""
    home = tmp_path / "other" / ".prefect"
    home.mkdir(parents=True)
    source = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(home / "prefect.db")) as new:
        old.backup(new)
    return home
