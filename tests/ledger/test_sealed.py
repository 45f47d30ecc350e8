"""A ledger that is open, incomplete, foreign or damaged is never used, and the message says what is wrong."""

import json
import shutil

import numpy as np
import pytest
import torch

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool
from amnesiac.errors import DamagedRow, DamagedStore, IncompleteStore, SpecMismatch, UnknownSample, UnsealedStore
from amnesiac.hashing import hash_tensors
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.sealed import open_ledger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import OptimizerSettings


def test_residual_is_reported_and_small_without_weight_decay(pristine):
    assert pristine.manifest.residual["delta"] < 1e-5


@pytest.mark.parametrize("optimizer", [OptimizerSettings(name="adam", lr=0.01), OptimizerSettings(weight_decay=0.1)])
def test_residual_of_other_optimizers(optimizer, train_run, tmp_path):
    residual = train_run(tmp_path, optimizer).manifest.residual["delta"]
    assert residual < 1e-5 if optimizer.weight_decay == 0 else 1e-3 < residual < 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_half_precision_costs_little(dtype, train_run, tmp_path):
    assert train_run(tmp_path, dtype=dtype).manifest.residual["delta"] < (1e-5 if dtype == "float32" else 1e-3)


def test_low_rank_convolutions_are_smaller_and_leave_a_residual(train_run, tmp_path):
    exact, rough = train_run(tmp_path / "a"), train_run(tmp_path / "b", rank=1)
    assert 1e-5 < rough.manifest.residual["delta"] < 0.5
    assert rough.manifest.entries["delta"].row_bytes <= exact.manifest.entries["delta"].row_bytes


def test_few_files(pristine):
    assert sum(path.is_file() for path in pristine.folder.rglob("*")) < 40


def test_sums_are_bit_identical_in_any_order_and_grouping(pristine, generator):
    ledger = open_ledger(pristine.folder)
    for name, entry in pristine.manifest.entries.items():
        rows = generator.permutation(entry.rows)[: entry.rows // 2]
        whole = ledger.total(name, rows.tolist())
        parts = [ledger.total(name, part.tolist()) for part in np.array_split(rows[::-1], 5)]
        for key in whole:
            assert torch.equal(whole[key], sum(part[key] for part in parts)), (name, key)


def test_captured_classes_only(train_run, tmp_path):
    run = train_run(tmp_path, classes=(2,))
    ledger = open_ledger(run.folder)
    twos = torch.nonzero(run.data.labels == 2).flatten().tolist()
    assert run.manifest.entries["delta"].rows == len(twos)
    full = open_ledger(train_run(tmp_path / "full").folder)
    ours, theirs = (lg.total("delta", lg.sample_rows(twos)) for lg in (ledger, full))
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-7)
    with pytest.raises(IncompleteStore, match=r"1 samples .* e\.g\. \['s0'\].*capture.classes"):
        ledger.sample_rows([0, *twos])


def test_unsealed(tmp_path, ledger_copy):
    with pytest.raises(UnsealedStore, match="--resume"):
        open_ledger(tmp_path / "nothing")
    (ledger_copy / "manifest.json").unlink()
    with pytest.raises(UnsealedStore, match="manifest.json is missing"):
        open_ledger(ledger_copy)


def test_foreign_run_and_weights(pristine):
    with pytest.raises(SpecMismatch, match="belongs to run"):
        open_ledger(pristine.folder, run_id="0" * 16)
    with pytest.raises(SpecMismatch, match="out of step"):
        open_ledger(pristine.folder, weights_sha256="0" * 64)
    open_ledger(
        pristine.folder,
        run_id=pristine.spec.run_id(pristine.capture),
        weights_sha256=hash_tensors(pristine.result.weights),
    )


def test_altered_manifest(ledger_copy):
    path = ledger_copy / "manifest.json"
    stored = json.loads(path.read_text())
    stored["manifest"]["visits"]["smallest"] = 99
    path.write_text(json.dumps(stored))
    with pytest.raises(DamagedStore, match="was altered"):
        open_ledger(ledger_copy)
    path.write_text("{")
    with pytest.raises(DamagedStore, match="can't be read"):
        open_ledger(ledger_copy)


@pytest.mark.parametrize("name", ["samples.parquet", "visits.parquet"])
def test_altered_or_missing_tables(ledger_copy, name):
    path = ledger_copy / name
    path.write_bytes(path.read_bytes() + b"x")
    ledger = open_ledger(ledger_copy)
    with pytest.raises(DamagedStore, match=f"{name} was altered"):
        ledger.samples if name == "samples.parquet" else ledger.steps_of([0])
    path.unlink()
    with pytest.raises(DamagedStore, match=f"{name} is missing"):
        open_ledger(ledger_copy)


@pytest.mark.parametrize("name", ["delta", "subset-lr", "updates"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "swap"])
def test_damaged_rows(ledger_copy, name, damage):
    shard = ledger_copy / "rows.zarr" / name / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    size = open_ledger(ledger_copy).row_bytes(name)
    if damage == "delete":
        shard.unlink()
    elif damage == "truncate":
        shard.write_bytes(data[: len(data) // 2])
    else:
        if damage == "flip":
            data[3 * size + 5] ^= 1
        else:
            data[:size], data[size : 2 * size] = data[size : 2 * size], data[:size]
        shard.write_bytes(data)
    with pytest.raises(DamagedRow, match="dvc checkout"):
        open_ledger(ledger_copy).check_rows(name)


def test_a_damaged_row_is_named_and_others_still_work(ledger_copy):
    shard = ledger_copy / "rows.zarr" / "delta" / "c" / "0" / "0"
    ledger = open_ledger(ledger_copy)
    data = bytearray(shard.read_bytes())
    data[4 * ledger.row_bytes("delta") + 1] ^= 128
    shard.write_bytes(data)
    with pytest.raises(DamagedRow, match="row 4 of 'delta' is damaged.*samples 's4' to 's4'"):
        ledger.total("delta", [4])
    ledger.total("delta", [3, 5])


def test_rows_of_another_run_are_refused(ledger_copy, train_run, tmp_path):
    other = train_run(tmp_path / "other", OptimizerSettings(lr=0.02))
    for name in ("delta", "delta.tags"):
        shutil.rmtree(ledger_copy / "rows.zarr" / name)
        shutil.copytree(other.folder / "rows.zarr" / name, ledger_copy / "rows.zarr" / name)
    with pytest.raises(DamagedStore, match="checksums of 'delta' don't match"):
        open_ledger(ledger_copy).total("delta", [0])


def test_what_was_not_captured_is_named(pristine):
    ledger = open_ledger(pristine.folder)
    with pytest.raises(SpecMismatch, match="no 'settled' rows.*capture.methods"):
        ledger.total("settled", [0])
    with pytest.raises(UnknownSample, match="nobody"):
        ledger.positions(["s1", "nobody"])
    assert ledger.positions(["s3", "s1"]) == [3, 1]


def test_a_run_with_missing_visits_is_not_sealed(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    with recorder.batch([0, 1]):
        model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    recorder.close()
    state = dict(model.state_dict())
    run = Run("run", {}, ["a", "b", "c"], ["a", "b", "c"], state, state, expected_visits=1)
    with pytest.raises(IncompleteStore, match="1 samples don't have the 1 visits.*'c' has 0"):
        seal(tmp_path / "spool", tmp_path / "ledger", run, (LedgerSpec("delta", "sample"),))
    assert list(tmp_path.iterdir()) == [tmp_path / "spool"]
