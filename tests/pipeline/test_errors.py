"""What is refused: exit code, a message that names what is wrong, and nothing changed."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tasks.locking import single_writer
from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Project, finish, flow_runs, sha256

Copied = Callable[[str], Project]


def test_bad_input_is_named_and_nothing_is_filed(copied: Copied, tmp_path: Path) -> None:
    project = copied("project")
    journal = (project.data / "journal/requests.jsonl").read_bytes()
    unknown, elsewhere, misspelt = finish(
        project.amnesiac("request", "add", "--sample", "nobody-1", "--sample", "nobody-2", code=2),
        Project(tmp_path).amnesiac("request", "list", code=2),
        project.amnesiac("request", "ad", code=2),
    )
    assert "doesn't hold sample 'nobody-1', sample 'nobody-2' (2 unknown in all)" in unknown.err
    assert "params.yaml" in elsewhere.err
    assert "No such command" in misspelt.err
    assert (project.data / "journal/requests.jsonl").read_bytes() == journal
    assert {path.name for path in tmp_path.iterdir()} == {"project"}, "nothing is left in a folder that is no project"


def test_a_stage_that_lacks_an_earlier_one_or_the_journal_says_so(copied: Copied) -> None:
    untrained, without_journal = copied("untrained"), copied("without-journal")
    shutil.rmtree(untrained.data / "model")
    shutil.rmtree(without_journal.data / "journal")
    pointer, weights = (without_journal.data / "requests.json").read_bytes(), without_journal.weights()
    missing, lost = finish(untrained.amnesiac("unlearn", code=1), without_journal.amnesiac("unlearn", code=1))
    assert f"error: {untrained.data / 'model'} doesn't exist: run `amnesiac train` before" in missing.err
    assert "error: " in lost.err
    assert "holds 0 requests, and the first 2 were asked for: restore the journal" in lost.err
    assert (without_journal.data / "requests.json").read_bytes() == pointer, "a lost journal takes no deletion back"
    assert without_journal.weights() == weights


def test_a_damaged_row_stops_the_deletion_and_dvc_restores_it(copied: Copied) -> None:
    project = copied("project")
    before = {path: sha256(path) for path in (project.data / "unlearned").iterdir()}
    rows = project.data / "ledger/rows.zarr/delta"
    [shard] = [path for path in (rows / "c").rglob("*") if path.is_file()]
    whole, (n_rows, row_bytes) = shard.read_bytes(), json.loads((rows / "zarr.json").read_text())["shape"]
    damaged = bytearray(whole)
    for row in range(n_rows):
        damaged[row * row_bytes + 7] ^= 1
    shard.write_bytes(damaged)
    [refused] = finish(project.amnesiac("unlearn", "--force", code=1))
    message = refused.err.rpartition("error: ")[2]
    assert "of 'delta' is damaged: checksum differs" in message
    assert "Restore it with `dvc checkout`" in message
    assert {path: sha256(path) for path in (project.data / "unlearned").iterdir()} == before
    [status] = finish(project.dvc("status", "--json"))
    assert {"changed outs": {"pipeline_data/ledger": "modified"}} in status.json()["train"]
    finish(project.dvc("checkout", "--quiet", "--force", "pipeline_data/ledger"))
    assert shard.read_bytes() == whole
    assert finish(project.dvc("status"))[0].out.strip().endswith("up to date.")


def test_a_second_writer_waits_for_the_first(cycled: Cycled, copied: Copied) -> None:
    project, server = copied("project"), cycled.project.server
    assert server is not None
    version = project.data / "unlearned/version.json"
    before, written = project.weights(), version.stat().st_mtime_ns
    known = {run["id"] for run in flow_runs(server)}
    with single_writer(project.data):
        second = project.amnesiac("unlearn", "--force").start()
        deadline = time.monotonic() + 60
        while not {run["id"] for run in flow_runs(server)} - known:
            assert second.poll() is None and time.monotonic() < deadline, second.communicate()
            time.sleep(0.1)
        time.sleep(1.5)
        assert second.poll() is None, "it waits"
        assert version.stat().st_mtime_ns == written
    printed = second.communicate(timeout=60)
    assert second.returncode == 0, printed
    assert version.stat().st_mtime_ns > written
    assert project.weights() == before
    assert finish(project.dvc("status"))[0].out.strip().endswith("up to date.")
