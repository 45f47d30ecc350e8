"""What is refused: exit code, a message that names what is wrong, and nothing changed."""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.locking import single_writer
from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Done, Project, ask, file, finish, flow_runs, kill, run, sha256


@dataclass(frozen=True)
class Refused:
    """Projects in which something was wrong, each with what one command said (run side by side, to save time)."""

    unknown_id: tuple[Project, Done]
    untrained: tuple[Project, Done]
    lost_journal: tuple[Project, Done]
    lost_keys: tuple[Project, Done]
    damaged: tuple[Project, Done]


@pytest.fixture(scope="module")
def refused(cycled: Cycled, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    folder = tmp_path_factory.mktemp("refused")
    names = ("unknown", "untrained", "lost-journal", "lost-keys", "damaged")
    unknown, untrained, lost, keyless, damaged = (
        cycled.project.copy(folder / name, cycled.project.server) for name in names
    )
    shutil.rmtree(untrained.data / "model")
    shutil.rmtree(lost.data / "journal")
    shutil.rmtree(keyless.data / "keys")
    damage_rows(damaged)
    file(damaged, "--random", "3", "--seed", "9")  # whose rows have to be read
    said = finish(
        unknown.amnesiac("request", "add", "--sample", "nobody-1", "--sample", "nobody-2", code=2),
        untrained.amnesiac("unlearn", code=1),
        lost.amnesiac("unlearn", code=1),
        keyless.amnesiac("unlearn", "--force", code=1),
        damaged.amnesiac("publish", code=1),
    )
    return Refused(*zip((unknown, untrained, lost, keyless, damaged), said, strict=True))


def shard(project: Project) -> Path:
    """The one file that holds the ledger's rows."""
    [found] = [path for path in (project.data / "ledger/rows.zarr/delta/c").rglob("*") if path.is_file()]
    return found


def damage_rows(project: Project) -> None:
    """Flip a bit in every row."""
    n_rows, row_bytes = json.loads((project.data / "ledger/rows.zarr/delta/zarr.json").read_text())["shape"]
    content = bytearray(shard(project).read_bytes())
    for row in range(n_rows):
        content[row * row_bytes + 7] ^= 1
    shard(project).write_bytes(content)


def contents(project: Project, *names: str) -> dict[str, str]:
    """SHA-256 of every file below these folders."""
    files = [path for name in names for path in (project.data / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(project.data)): sha256(path) for path in files}


def test_unknown_ids_are_listed_and_nothing_is_filed(cycled: Cycled, refused: Refused) -> None:
    project, said = refused.unknown_id
    assert "doesn't hold sample 'nobody-1', sample 'nobody-2' (2 unknown in all)" in said.err
    assert contents(project, "journal") == contents(cycled.project, "journal") != {}


def test_a_stage_names_the_one_that_has_to_run_before(cycled: Cycled, refused: Refused) -> None:
    project, said = refused.untrained
    assert f"error: {project.data / 'model'} doesn't exist: run `amnesiac train` before `amnesiac unlearn`" in said.err
    assert contents(project, "unlearned") == contents(cycled.project, "unlearned") != {}


def test_a_lost_journal_takes_no_deletion_back(cycled: Cycled, refused: Refused) -> None:
    project, said = refused.lost_journal
    message = said.err.rpartition("error: ")[2]
    assert "holds 0 requests, and the first 2 were asked for: restore the journal from a backup" in message
    assert f"remove {project.data / 'requests.json'}" in message
    assert (project.data / "requests.json").read_text() == (cycled.project.data / "requests.json").read_text()
    assert contents(project, "unlearned") == contents(cycled.project, "unlearned")


def test_without_its_keys_nothing_is_read_and_no_new_ones_are_made(cycled: Cycled, refused: Refused) -> None:
    project, said = refused.lost_keys
    message = said.err.rpartition("error: ")[2]
    assert f"no key store at {project.data / 'keys'}" in message
    assert "Restore its backup there, or set AMNESIAC_KEYS" in message
    assert not (project.data / "keys").exists()
    assert contents(project, "unlearned") == contents(cycled.project, "unlearned")


def test_a_damaged_row_stops_the_deletion_and_dvc_restores_it(cycled: Cycled, refused: Refused) -> None:
    project, said = refused.damaged
    message = said.err.rpartition("error: ")[2]
    assert "of 'delta' is damaged: its authentication tag differs" in message
    assert "Restore it with `dvc checkout`" in message
    assert contents(project, "unlearned") == contents(cycled.project, "unlearned")
    [status] = finish(project.dvc("status", "--json"))
    assert {"changed outs": {"pipeline_data/ledger": "modified"}} in status.json()["train"]
    finish(project.dvc("checkout", "--quiet", "--force", "pipeline_data/ledger"))
    assert contents(project, "ledger") == contents(cycled.project, "ledger") != {}
    assert "train" not in finish(project.dvc("status", "--json"))[0].json()


def test_what_failed_is_told_in_full_here_and_opaquely_to_prefect(cycled: Cycled, refused: Refused) -> None:
    """The message names samples: the whole of it is on the command line, none of it in Prefect's database."""
    project, said = refused.damaged
    assert re.search(r"rows belong to samples 'mnist-5k-\d{5}' to 'mnist-5k-\d{5}'", said.err.rpartition("error: ")[2])
    server = cycled.project.server
    assert server is not None
    failed = [run for run in flow_runs(server) if run["state"]["type"] == "FAILED"]
    messages = [run["state"]["message"] for run in failed]
    assert any("DamagedRow: the message may name samples" in message for message in messages)
    logs = [log["message"] for log in ask(server, "logs/filter", sort="TIMESTAMP_DESC")]
    assert any("DamagedRow: the message may name samples" in log for log in logs)
    assert not [text for text in messages + logs if re.search(r"mnist-5k-\d{5}", text)]


def test_a_failed_run_leaves_no_batch_open(refused: Refused) -> None:
    project, _ = refused.damaged
    found = json.loads(run(project, "status", "--json").output)
    assert found["unfinished"] is None
    assert found["requests"] == {"PUBLISHED": 2, "RECEIVED": 1}


def test_bad_usage_leaves_nothing_behind(tmp_path: Path) -> None:
    nowhere = Project(tmp_path)
    elsewhere, misspelt = finish(nowhere.amnesiac("train", code=2), nowhere.amnesiac("request", "ad", code=2))
    assert f"{tmp_path} holds no params.yaml" in " ".join(elsewhere.err.replace("│", " ").split())
    assert "No such command 'ad'" in misspelt.err
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_waits_for_the_first(cycled: Cycled, copied: Callable[[str], Project]) -> None:
    project, server = copied("project"), cycled.project.server
    assert server is not None
    version = project.data / "unlearned/version.json"
    before, written = project.weights(), version.stat().st_mtime_ns
    known = {run["id"] for run in flow_runs(server)}
    second = project.amnesiac("unlearn", "--force").start()
    try:
        with single_writer(project.data):
            deadline = time.monotonic() + 300
            while not {run["id"] for run in flow_runs(server)} - known:
                assert second.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(1.5)
            assert second.poll() is None, "it waits"
            assert version.stat().st_mtime_ns == written
        printed = second.communicate(timeout=240)
    finally:
        kill(second)
    assert second.returncode == 0, printed
    assert version.stat().st_mtime_ns > written
    assert project.weights() == before
    assert finish(project.dvc("status"))[0].out.strip().endswith("up to date.")
