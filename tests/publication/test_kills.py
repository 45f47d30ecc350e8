"""A batch killed at any change on disk leaves the version before or the one after, and the next run ends alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_at_every_change_on_disk(project, tmp_path):
    project.file("s1", "s2")
    project.run()
    project.file("s3", name="later")
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-m", "tests.publication.kills", str(project.root), str(tmp_path / "work")]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    before, after = found["before"], {key: found["after"][key] for key in found["before"]}
    assert (len(before["requests"]), after["requests"][1:]) == (1, ["later"])
    assert found["points"] == len(found["trials"]) > 40
    assert {trial["found"]["version"] for trial in found["trials"]} == {before["version"], after["version"]}
    for trial in found["trials"]:
        assert trial["found"] in (before, after), trial
        again = trial["again"]
        assert {key: again[key] for key in after} == after, trial
        assert again["hidden"] == [], trial
        assert set(again["versions"]) == {before["version"], after["version"]}, trial
        states = [tuple(batch) for batch in again["batches"]]
        assert [state for state in states if state[1] is None] == [("PUBLISHED", None)] * 2, trial
        assert len(states) <= 3, trial
