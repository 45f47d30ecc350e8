"""A run that was killed, and killed again, ends with the bits of one that was not: real processes, real SIGKILL."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amnesiac.errors import DamagedStore, SpecMismatch, UnsealedStore
from amnesiac.hashing import hash_file
from amnesiac.ledger.sealed import open_ledger

SCRIPT = Path(__file__).with_name("killed_run.py")
MODULE = importlib.util.spec_from_file_location("killed_run", SCRIPT)
killed_run = importlib.util.module_from_spec(MODULE)
MODULE.loader.exec_module(killed_run)
STEPS, EPOCHS = killed_run.STEPS, killed_run.EPOCHS


def kill(folder, optimizer, stage, done):
    command = [sys.executable, SCRIPT, folder, optimizer, stage, str(done)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    finished = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == -signal.SIGKILL, finished.stderr


def files(folder):
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run for each optimizer."""
    made = {}
    for optimizer in killed_run.OPTIMIZERS:
        folder = tmp_path_factory.mktemp(optimizer)
        made[optimizer] = folder, killed_run.run(folder, optimizer, resume=False)
    return made


def assert_same(folder, result, whole):
    reference, expected = whole
    for key, value in expected.weights.items():
        assert torch.equal(result.weights[key], value), key
    assert files(folder / "ledger") == files(reference / "ledger")
    assert [r.loss for r in result.history] == [r.loss for r in expected.history]
    assert [r.epoch for r in result.history] == list(range(1, EPOCHS + 1))


def test_two_runs_in_different_processes_have_the_same_bits(whole, tmp_path):
    """The comparison itself: without it, equal bits after a kill could be luck of one process."""
    kill(tmp_path, "sgd", "sealed", 0)
    assert files(tmp_path / "ledger") == files(whole["sgd"][0] / "ledger")
    # the ledger stands, the scratch is still there: resuming seals once more
    assert_same(tmp_path, killed_run.run(tmp_path, "sgd", resume=True), whole["sgd"])


def test_killed_before_the_first_checkpoint_then_in_a_later_epoch(whole, tmp_path):
    kill(tmp_path, "sgd", "train", 3)
    assert not (tmp_path / "scratch" / "checkpoint.json").exists()
    assert (tmp_path / "scratch" / "spool" / "visits.bin").exists()
    kill(tmp_path, "sgd", "train", 2 * STEPS + 2)
    kept = {p.name for p in (tmp_path / "scratch").glob("epoch-*")}  # written while training went on
    assert kept and kept <= {"epoch-1.safetensors", "epoch-2.safetensors"}
    assert not (tmp_path / "ledger").exists()
    assert_same(tmp_path, killed_run.run(tmp_path, "sgd", resume=True), whole["sgd"])


def test_adam_killed_in_an_epoch_then_while_sealing(whole, tmp_path):
    kill(tmp_path, "adam", "train", STEPS + 4)
    kill(tmp_path, "adam", "seal subset-one", 18)
    assert not (tmp_path / "ledger").exists()
    assert list(tmp_path.glob(".ledger.*.partial"))
    told = []
    result = killed_run.run(tmp_path, "adam", resume=True, progress=lambda *what: told.append(what))
    assert "train" not in {stage for stage, *_ in told}
    assert_same(tmp_path, result, whole["adam"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger", "scratch"]
    open_ledger(tmp_path / "ledger").check_rows("delta")


class Stopped(Exception):
    """Stands for a power cut in the tests that need no process of their own."""


def stop_at(step):
    def progress(stage, done, total):
        if (stage, done) == ("train", step):
            raise Stopped

    return progress


def stopped(folder, step=STEPS + 2, **training):
    with pytest.raises(Stopped):
        killed_run.run(folder, "sgd", resume=False, progress=stop_at(step), **training)


def test_seconds_count_what_was_trained_before_the_interruption(tmp_path):
    stopped(tmp_path, step=2 * STEPS + 1)
    result = killed_run.run(tmp_path, "sgd", resume=True)
    assert result.seconds > sum(record.seconds for record in result.history[:2])


def test_resuming_another_run_is_refused_and_names_both(tmp_path):
    stopped(tmp_path)
    before = files(tmp_path)
    with pytest.raises(SpecMismatch, match=r"run ([0-9a-f]{16}), but .* run (?!\1)[0-9a-f]{16}.*without --resume"):
        killed_run.run(tmp_path, "sgd", resume=True, batch_size=5)
    assert files(tmp_path) == before


def test_without_resume_the_run_starts_from_the_beginning(whole, tmp_path):
    stopped(tmp_path)
    told = []
    result = killed_run.run(tmp_path, "sgd", resume=False, progress=lambda *what: told.append(what))
    assert told[0] == ("train", 1, EPOCHS * STEPS)
    assert_same(tmp_path, result, whole["sgd"])


def test_resuming_where_nothing_is_starts_from_the_beginning(whole, tmp_path):
    assert_same(tmp_path, killed_run.run(tmp_path, "sgd", resume=True), whole["sgd"])


def test_a_spool_that_lost_visits_is_refused(tmp_path):
    stopped(tmp_path)
    with (tmp_path / "scratch" / "spool" / "visits.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UnsealedStore, match=r"visits\.bin is shorter than its checkpoint.*without --resume"):
        killed_run.run(tmp_path, "sgd", resume=True)


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path):
    stopped(tmp_path)
    (tmp_path / "scratch" / "epoch-1.safetensors").unlink()
    with pytest.raises(DamagedStore, match=r"epoch-1\.safetensors"):
        killed_run.run(tmp_path, "sgd", resume=True)
    (tmp_path / "scratch" / "checkpoint.json").write_text("{")
    with pytest.raises(DamagedStore, match=r"checkpoint\.json can't be read.*without --resume"):
        killed_run.run(tmp_path, "sgd", resume=True)
