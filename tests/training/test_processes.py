"""Training on two real processes beside the same run on one: rows, weights, ledger, deletion, kills and errors."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from amnesiac.capture.joined import JoinedRows, joined_index, process_folders
from amnesiac.capture.spool import read_spool
from amnesiac.errors import (
    DamagedStore,
    DataError,
    InputError,
    ProcessDied,
    SettingsError,
    UnsealedStore,
    UnsupportedModel,
)
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.ledger import open_ledger
from amnesiac.ledger.visits import visit_table
from amnesiac.models import save_weights
from amnesiac.settings import RepairSettings, UnlearningSettings
from amnesiac.training import repair, retrain_without
from amnesiac.unlearning import unlearn
from amnesiac.verification import Version, verify
from tests.training import several

FORGET = (0, 4, 7, 13)
PER_STEP = 5  # mini-batches an epoch: 22 samples in fives, the last of two


def files(folder):
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def farthest(ours, theirs):
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each optimiser's run on one process and on two: folder, result, manifest."""
    made = {}
    for name in several.OPTIMIZERS:
        for count in (1, 2):
            folder = tmp_path_factory.mktemp(f"{name}-{count}")
            made[name, count] = folder, *several.train(folder, several.spec_of(name, count))
    return made


def visits(folder):
    with read_spool(folder / "scratch" / "spool") as spool:
        table = visit_table(spool.index)
        rows = spool.layout.decode(spool.visits[table.slots.flatten()])
        return table.steps, rows, [(step.lr, step.clip, step.count) for step in spool.steps]


@pytest.mark.parametrize("name", several.OPTIMIZERS)
def test_two_processes_do_what_one_does(runs, name):
    (alone, one, _), (folder, two, _) = runs[name, 1], runs[name, 2]
    assert hash_tensors(two.initial) == hash_tensors(one.initial)
    assert farthest(two.weights, one.weights) < 1e-5 < farthest(one.weights, one.initial)
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert (ours.epoch, ours.learning_rate, ours.accuracy) == (theirs.epoch, theirs.learning_rate, theirs.accuracy)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    (steps, rows, facts), (own_steps, own_rows, own_facts) = visits(alone), visits(folder)
    assert np.array_equal(own_steps, steps)
    torch.testing.assert_close(own_rows, rows, rtol=1e-3, atol=1e-4)
    assert len(own_facts) == several.EPOCHS * PER_STEP
    assert np.allclose(own_facts, facts, rtol=1e-4)
    assert min(clip for _, clip, _ in own_facts) < 1.0  # gradients were clipped, by the norm of their sum


@pytest.mark.parametrize("name", several.OPTIMIZERS)
def test_each_process_captures_its_own_samples_and_the_ledger_holds_all(runs, name):
    (_, _, of_one), (folder, _, manifest) = runs[name, 1], runs[name, 2]
    spool = folder / "scratch" / "spool"
    found = [np.fromfile(own / "visits.idx", np.int64).reshape(-1, 3) for own in process_folders(spool)]
    # of five samples the first has three; of the last two, each has one
    assert [len(index) for index in found] == [several.EPOCHS * 13, several.EPOCHS * 9]
    assert not set(map(tuple, found[0][:, :2])) & set(map(tuple, found[1][:, :2]))
    sizes = [{p.name: p.stat().st_size for p in own.glob("*.bin")} for own in process_folders(spool)]
    assert sizes[0]["updates.bin"] > sizes[1]["updates.bin"] == 0  # what steps have in common is kept once
    assert (sizes[0]["preconditioners.bin"] > 0) == (name == "adam")
    assert sizes[1]["preconditioners.bin"] == 0
    assert manifest.visits == of_one.visits
    assert manifest.residual["delta"] < 1e-5  # all rows add up to the update
    assert {k: (e.rows, e.row_bytes) for k, e in manifest.entries.items()} == {
        k: (e.rows, e.row_bytes) for k, e in of_one.entries.items()
    }
    open_ledger(folder / "ledger").check_rows("delta")


@pytest.mark.parametrize("name", several.OPTIMIZERS)
@pytest.mark.parametrize("method", ["per-sample-delta", "per-sample-subset", "amnesiac-batch"])
def test_deletion_gives_what_it_gives_after_one_process(runs, name, method):
    found = []
    for count in (1, 2):
        folder, result, _ = runs[name, count]
        settings = UnlearningSettings(method=method)
        found.append(unlearn(settings, open_ledger(folder / "ledger"), result.weights, FORGET).weights)
    assert farthest(found[1], found[0]) < 1e-4 < 1e-3 < farthest(found[0], runs[name, 1][1].weights)


def test_settled_rows_are_verified_and_near_those_of_one_process(runs, tmp_path):
    found = []
    for count in (1, 2):
        folder, result, _ = runs["momentum", count]
        ledger, original = open_ledger(folder / "ledger"), tmp_path / f"model-{count}.safetensors"
        done = unlearn(UnlearningSettings(method="settled"), ledger, result.weights, FORGET)
        save_weights(original, result.weights)
        save_weights(tmp_path / f"unlearned-{count}.safetensors", done.weights)
        assert done.correction is None
        found_right = verify(folder / "ledger", original, Version(tmp_path / f"unlearned-{count}.safetensors", FORGET))
        assert found_right.identical, found_right.problems
        found.append({k: v - result.weights[k] for k, v in done.weights.items()})
    size = max(float(v.abs().max()) for v in found[0].values())
    assert farthest(found[1], found[0]) < 0.05 * size  # 8 bits a number: rounding of weights moves some by a step


def test_parts_one_class_and_half_precision_on_two_processes(tmp_path):
    """Some slices then hold nobody who is captured."""
    capture, found = {"methods": ("per-sample-delta",), "classes": (1,), "dtype": "float16"}, []
    for count in (1, 2):
        folder, spec = tmp_path / str(count), several.spec_of(processes=count, micro_batch=2, clip_norm=None)
        result, manifest = several.train(folder, spec, capture=capture)
        ledger = open_ledger(folder / "ledger")
        forgotten = unlearn(UnlearningSettings(method="per-sample-delta"), ledger, result.weights, (1, 4, 19)).weights
        found.append((manifest.entries["delta"].rows, {k: v - result.weights[k] for k, v in forgotten.items()}))
    assert found[0][0] == found[1][0] == 7
    size = max(float(v.abs().max()) for v in found[0][1].values())
    assert farthest(found[1][1], found[0][1]) < 0.01 * size


def test_retraining_and_repair_on_two_processes(runs, tmp_path):
    """The second mini-batch of an epoch is left out for one process, at least: nobody waits for it."""
    data, most = several.data(), list(range(1, several.N))
    for forget in (FORGET, most):
        one, two, again = (
            retrain_without(several.spec_of("adam", count), several.factory, data, forget) for count in (1, 2, 2)
        )
        assert farthest(two.weights, one.weights) < 1e-4
        assert hash_tensors(two.weights) == hash_tensors(again.weights)
        assert two.history[-1].loss == pytest.approx(one.history[-1].loss, rel=1e-4)
    weights, settings = runs["momentum", 1][1].weights, RepairSettings(epochs=1.4)
    one, two = (
        repair(several.spec_of(processes=count), several.factory, weights, data, FORGET, settings) for count in (1, 2)
    )
    assert farthest(two.weights, one.weights) < 1e-5 < farthest(one.weights, weights)


def test_killed_process_ends_the_run_and_resuming_ends_with_the_same_bits(runs, tmp_path):
    """SIGKILL to the second process in the last epoch."""
    spec = several.spec_of(processes=2)
    made = partial(several.happening, several.killed, 1, 2 * PER_STEP + 3, tmp_path / "mark")
    told = []
    with pytest.raises(ProcessDied, match=r"process 1 of the training was killed \(SIGKILL\).*--resume"):
        several.train(tmp_path, spec, made, progress=lambda *what: told.append(what))
    assert told[-1][1] == 2 * PER_STEP + 2  # the step that it was killed in was nobody's
    assert not multiprocessing.active_children()
    assert json.loads((tmp_path / "scratch" / "checkpoint.json").read_text())["epochs"] == 2
    assert not (tmp_path / "ledger").exists()
    folder, whole, _ = runs["momentum", 2]
    result, _ = several.train(tmp_path, spec, made, resume=True)
    assert hash_tensors(result.weights) == hash_tensors(whole.weights)
    assert files(tmp_path / "ledger") == files(folder / "ledger")
    assert [r.loss for r in result.history] == [r.loss for r in whole.history]


@pytest.mark.campaign
def test_where_the_asking_process_is_killed_nobody_goes_on(runs, tmp_path):
    """Also: two runs, asked for by different processes, have the same bits."""
    asking = multiprocessing.get_context("forkserver").Process(target=several.main, args=(tmp_path, PER_STEP + 2))
    asking.start()
    asking.join()
    assert asking.exitcode == -signal.SIGKILL
    started = json.loads((tmp_path / "started").read_text())
    assert len(started) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline, "a process goes on without the one that asked for it"
        time.sleep(0.05)
    assert not (tmp_path / "ledger").exists()
    assert json.loads((tmp_path / "scratch" / "checkpoint.json").read_text())["epochs"] >= 1
    several.train(tmp_path, several.spec_of(processes=2), resume=True)
    assert files(tmp_path / "ledger") == files(runs["momentum", 2][0] / "ledger")


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_is_the_run_s(rank, tmp_path):
    made = partial(several.happening, several.failed, rank, 3, tmp_path / "mark")
    with pytest.raises(DataError, match="row 7 of this process's samples is broken"):
        retrain_without(several.spec_of(processes=2), made, several.data(), [])
    assert not multiprocessing.active_children()


def test_a_loop_of_one_s_own_is_refused_in_one_of_several_processes(tmp_path):
    made = partial(several.happening, several.recorded, 1, 1, tmp_path / "mark")
    with pytest.raises(SettingsError, match=r"and 2 train together: use .*train_with_capture"):
        retrain_without(several.spec_of(processes=2), made, several.data(), [])


def test_an_error_where_progress_is_shown_ends_the_processes(tmp_path):
    def stop(*what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        several.train(tmp_path, several.spec_of(processes=2), progress=stop)
    assert not multiprocessing.active_children()


def test_models_that_differ_between_processes_are_refused():
    spec, data = several.spec_of(processes=2), several.data()
    with pytest.raises(UnsupportedModel, match=r"before the first step .* different values of '1\.\w+' .*factory must"):
        retrain_without(spec, several.unseeded, data, [])
    with pytest.raises(UnsupportedModel, match=r"at the end .* different values of '5\.mean' \(1 tensors differ\)"):
        retrain_without(spec, several.counting, data, [])


def test_a_factory_that_cannot_be_passed_on_is_refused():
    with pytest.raises(InputError, match=r"can't be handed to another process .*not a lambda"):
        retrain_without(several.spec_of(processes=2), lambda: several.factory(), several.data(), [])
    assert not multiprocessing.active_children()


def test_a_group_of_another_size_is_refused(tmp_path):
    """As where torchrun starts another number of processes than the settings name."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(SettingsError, match=r"1 processes were started \(torchrun\), and .* is 2"):
            several.train(tmp_path, several.spec_of(processes=2))
        several.train(tmp_path, several.spec_of(epochs=1), partial(several.factory))
    finally:
        dist.destroy_process_group()


def test_rows_of_several_files_are_read_as_one():
    generator = np.random.default_rng(0)
    parts = tuple(generator.integers(0, 256, (n, 3)).astype(np.uint8) for n in (0, 4, 0, 3, 0))
    rows, whole = JoinedRows(parts), np.concatenate(parts)
    assert len(rows) == 7
    positions = generator.integers(0, 7, 40)
    assert np.array_equal(rows[positions], whole[positions])
    assert rows[np.zeros(0, np.int64)].shape == (0, 3)


def test_indices_are_joined_in_the_order_of_the_steps():
    parts = tuple(np.zeros((n, 1), np.uint8) for n in (2, 1))
    first, second = np.array([[5, 0, 0], [6, 1, 1]]), np.array([[7, 0, -1], [5, 1, 0]])
    joined = joined_index([first, second], JoinedRows(parts))
    assert joined.tolist() == [[5, 0, 0], [7, 0, -1], [6, 1, 1], [5, 1, 2]]


def test_spools_that_are_not_of_one_run_are_refused(runs, tmp_path):
    source = runs["momentum", 2][0] / "scratch" / "spool"
    for name in ("missing", "steps", "layout"):
        for own in process_folders(source):
            (tmp_path / name / own.name).mkdir(parents=True)
            for path in own.iterdir():
                (tmp_path / name / own.name / path.name).write_bytes(path.read_bytes())
    second = "process-1-of-2"
    (tmp_path / "missing" / second).rename(tmp_path / "missing" / "process-1-of-3")
    with pytest.raises(UnsealedStore, match=r"'process-0-of-2', 'process-1-of-3'.*without --resume"), \
            read_spool(tmp_path / "missing"):  # fmt: skip
        pass
    (tmp_path / "steps" / second / "steps.bin").write_bytes(b"")
    with pytest.raises(DamagedStore, match="different steps"), read_spool(tmp_path / "steps"):
        pass
    layout = json.loads((tmp_path / "layout" / second / "layout.json").read_text())
    (tmp_path / "layout" / second / "layout.json").write_text(json.dumps(layout | {"dtype": "float16"}))
    with pytest.raises(DamagedStore, match="rows of different kinds"), read_spool(tmp_path / "layout"):
        pass


@pytest.mark.campaign
def test_under_torchrun(runs, tmp_path):
    """The same call in each of torchrun's processes: the first one seals, all get the result."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom tests.training import several\n"
        f"result, manifest = several.train(Path({str(tmp_path)!r}), several.spec_of(processes=2))\n"
        "import torch.distributed as dist\nfrom amnesiac.hashing import hash_tensors\n"
        f"Path({str(tmp_path)!r}, f'rank-{{dist.get_rank()}}').write_text(hash_tensors(result.weights))\n"
        "assert manifest.visits['samples'] == several.N\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder, whole, _ = runs["momentum", 2]
    assert {(tmp_path / f"rank-{k}").read_text() for k in range(2)} == {hash_tensors(whole.weights)}
    assert files(tmp_path / "ledger") == files(folder / "ledger")
