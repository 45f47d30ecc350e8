"""The documented rehearsal of a team's set-up: PostgreSQL, an object store, two workers, one of them killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgresql import missing

ROOT = Path(__file__).parents[2]


@pytest.mark.campaign
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_two_scheduled_batches_on_two_workers_of_which_one_is_killed(tmp_path, record):
    script = [sys.executable, ROOT / "deploy/rehearsal.py", "--folder", tmp_path / "team"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    record(14, "a team's set-up with a killed worker", done.returncode == 0, steps=len(done.stdout.splitlines()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed it, and all its processes" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("rehearsal passed; everything that was started has ended")
