"""Every experiment has a short form, part of the normal suite, and a full one (`-m campaign`), which writes results."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.campaign.cycle import IDS, create
from tests.campaign.results import FOLDER, ROOT, save, write_page


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    """Trained and sealed; nothing was deleted. Don't write to it."""
    return create(tmp_path_factory.mktemp("sealed") / "project")


@pytest.fixture(scope="session")
def pending(sealed, tmp_path_factory):
    """One deletion is receipted, another is pending. Don't write to it."""
    project = sealed.copy(tmp_path_factory.mktemp("pending") / "project")
    project.file(IDS[1], IDS[2], name="first")
    project.run()
    project.file(IDS[5], IDS[7], name="second")
    (project.root / "cache" / "later").write_text("\n".join(IDS[3:]))
    return project


@pytest.fixture
def project(pending, tmp_path):
    return pending.copy(tmp_path / "project")


@pytest.fixture
def record(request):
    """`record(number, name, passed, **facts)`: a line of the results' page, of a full run only."""
    started = time.perf_counter()

    def note(number, name, passed, **facts):
        if request.node.get_closest_marker("campaign"):
            save(
                number,
                name,
                passed,
                {key.replace("_", " "): value for key, value in facts.items()},
                time.perf_counter() - started,
            )

    return note


@pytest.fixture
def process():
    """Run a module of the campaign in a process of its own; what it prints, as JSON."""

    def call(module, *arguments):
        words = [sys.executable, "-m", f"tests.campaign.{module}", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return call


def pytest_sessionfinish(session):
    if session.config.option.markexpr == "campaign" and not hasattr(session.config, "workerinput") and FOLDER.is_dir():
        write_page()
