"""An encrypted ledger gives the bits of one in clear, shows nothing without its keys, and can be erased in parts."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from amnesiac.errors import DamagedRow, DamagedStore, KeyDestroyed, KeyStoreMissing, SpecMismatch, UnknownSample
from amnesiac.hashing import hash_tensors
from amnesiac.keys import LocalKeyStore, sample_name, step_name
from amnesiac.ledger import open_ledger
from amnesiac.settings import CaptureSettings, CurvatureSettings, UnlearningSettings
from amnesiac.unlearning import unlearn
from tests.ledger.conftest import METHODS, factory

N = 37
SUBJECTS = [f"person-{k // 2}" for k in range(N)]
CAPTURE = CaptureSettings(methods=("settled", *METHODS), curvature=CurvatureSettings(smallest_sample=16))
FORGET = [3, 20, 21]


@pytest.fixture(scope="module")
def plain(small_run, small_data, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("plain"), factory, small_data(N), CAPTURE, subjects=SUBJECTS)


@pytest.fixture(scope="module")
def sealed(small_run, small_data, tmp_path_factory):
    """(run, folder of its keys); don't write to either."""
    folder = tmp_path_factory.mktemp("sealed")
    keys = LocalKeyStore(folder / "keys", create=True)
    keys.ensure([sample_name(f"s{k}") for k in (9, 2, 5)])  # the data set's keys were there before
    run = small_run(folder, factory, small_data(N), CAPTURE, keys=keys, subjects=SUBJECTS)
    return run, folder / "keys"


@pytest.fixture
def own(sealed, tmp_path):
    """(run, keys) to erase from and to damage."""
    run, keys = sealed
    folder = shutil.copytree(run.folder, tmp_path / "ledger")
    return replace(run, folder=folder), LocalKeyStore(shutil.copytree(keys, tmp_path / "keys"))


def opened(own, **changes):
    run, keys = own
    return open_ledger(run.folder, keys=keys, **changes)


def erase(own, *people):
    """As the pipeline will: the keys of their samples, and those of the steps that saw them."""
    ledger = opened(own)
    positions = [k for k, subject in enumerate(SUBJECTS) if subject in people]
    numbers = own[1].find([sample_name(f"s{k}") for k in positions])
    steps = ledger.step_keys[ledger.steps_of(positions)]
    own[1].destroy(np.concatenate([numbers, steps]))
    return positions


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("method", CAPTURE.methods)
def test_deletions_are_the_same_bits_with_and_without_encryption(method, plain, sealed):
    run, keys = sealed
    assert hash_tensors(run.weights) == hash_tensors(plain.weights)
    settings = UnlearningSettings(method=method)
    ours = unlearn(settings, open_ledger(run.folder, keys=LocalKeyStore(keys)), run.weights, FORGET)
    theirs = unlearn(settings, plain.ledger, plain.weights, FORGET)
    assert hash_tensors(ours.master) == hash_tensors(theirs.master)
    assert hash_tensors(ours.weights) != hash_tensors(run.weights)
    assert (ours.rows, ours.ledger) == (theirs.rows, theirs.ledger)


def test_what_is_said_of_samples_and_run_is_the_same(plain, sealed):
    run, keys = sealed
    ledger = open_ledger(run.folder, run_id=plain.manifest.run_id, keys=LocalKeyStore(keys))
    pd.testing.assert_frame_equal(ledger.samples, plain.ledger.samples)
    assert ledger.positions(["s4", "s30"]) == [4, 30]
    assert len(ledger) == N
    assert ledger.labels.tolist() == plain.ledger.labels.tolist()
    assert not ledger.erased.any()
    for name in ledger.manifest.entries:
        ledger.check_rows(name)
    assert plain.manifest.store_id is None
    assert plain.ledger.step_keys.size == 0


def test_no_id_and_no_delta_lies_in_clear(plain, sealed):
    ours, theirs = files(sealed[0].folder), files(plain.folder)
    rows = {
        name: content for name, content in theirs.items() if "/c/" in name and not re.search(r"\.(tags|table)/", name)
    }
    assert len(rows) == len(plain.manifest.entries)
    everything = b"".join(ours.values())
    for name, content in rows.items():
        assert len(content) > 1000, name
        parts = [content[start : start + 16] for start in range(0, 4000, 100)]
        telling = [part for part in parts if len(set(part)) > 8]
        assert telling, name
        assert not any(part in everything for part in telling), name
    table = pd.read_parquet(sealed[0].folder / "samples.parquet")
    assert list(table.columns) == ["key", "ids", "label", "visits", "ledger_row"]
    assert not any(b"person" in cell or cell == b"s3" for cell in table["ids"])
    assert b"person-" not in everything


def test_sealed_twice_is_byte_identical(sealed, small_run, small_data, tmp_path):
    run, keys = sealed
    again = small_run(tmp_path, factory, small_data(N), CAPTURE, keys=LocalKeyStore(keys), subjects=SUBJECTS)
    assert files(again.folder) == files(run.folder)


def test_each_row_has_its_samples_key_and_each_step_its_own(sealed):
    run, folder = sealed
    keys = LocalKeyStore(folder)
    ledger = open_ledger(run.folder, keys=keys)
    assert ledger.table["key"].tolist() == keys.find([sample_name(f"s{k}") for k in range(N)]).tolist()
    steps = ledger.manifest.visits["steps"]
    assert steps == 15
    assert ledger.step_keys.tolist() == keys.find([step_name(run.manifest.run_id, s) for s in range(steps)]).tolist()
    assert len({*ledger.table["key"], *ledger.step_keys}) == N + 15


def test_without_the_right_keys_it_does_not_open(sealed, tmp_path):
    folder = sealed[0].folder
    with pytest.raises(KeyStoreMissing, match="is encrypted with the keys of store .* and no key store was given"):
        open_ledger(folder)
    with pytest.raises(KeyStoreMissing, match="no key store at"):
        open_ledger(folder, keys=LocalKeyStore(tmp_path / "nowhere"))
    with pytest.raises(SpecMismatch, match="prepare and train again"):
        open_ledger(folder, keys=LocalKeyStore(tmp_path / "other", create=True))


def test_altered_rows_and_ids(own):
    run, keys = own
    for name in ("delta", "updates"):
        [shard] = [path for path in (run.folder / f"rows.zarr/{name}/c").rglob("*") if path.is_file()]
        content = bytearray(shard.read_bytes())
        content[opened(own).row_bytes(name) * 5 + 3] ^= 1
        shard.write_bytes(content)
        with pytest.raises(DamagedRow, match=f"row 5 of {name!r} is damaged: its authentication tag differs"):
            opened(own).check_rows(name)
    ledger = opened(own)
    swapped = ledger.table["ids"].tolist()[::-1]
    with pytest.raises(DamagedStore, match=r"samples\.parquet: the ids of row 0 were altered"):
        ledger.__dict__["table"] = ledger.table.assign(ids=swapped)
        _ = ledger.samples


@pytest.mark.parametrize("method", CAPTURE.methods)
def test_after_an_erasure_others_can_be_forgotten(method, own, plain):
    """The version that forgot the erased goes on; nothing of theirs is read again."""
    settings = UnlearningSettings(method=method)
    run, keys = own
    gone = [2, 3, 18, 19]
    first = unlearn(settings, opened(own), run.weights, gone)
    before = files(run.folder)
    assert erase(own, "person-1", "person-9") == gone
    assert files(run.folder) == before
    keys = LocalKeyStore(keys.folder)
    ledger = open_ledger(run.folder, keys=keys)
    second = unlearn(settings, ledger, run.weights, [20, 21, *gone], before=gone, master=first.master)
    whole = unlearn(settings, plain.ledger, plain.weights, [*gone, 20, 21])
    if method == "settled":  # class rows read a class that is gone at once; here none is
        assert whole.ledger == "settled"
    assert hash_tensors(second.master) == hash_tensors(whole.master)
    with pytest.raises(KeyDestroyed, match=r"keys asked for were destroyed .*Leave these samples out"):
        unlearn(settings, ledger, run.weights, gone)


def test_what_an_erased_sample_looks_like(own, plain):
    gone = erase(own, "person-1", "person-9")
    ledger = opened(own)
    assert np.flatnonzero(ledger.erased).tolist() == gone
    assert ledger.samples.loc[gone, "sample_id"].tolist() == [f"erased-{k}" for k in gone]
    assert ledger.samples.loc[gone, "subject_id"].tolist() == [f"erased-{k}" for k in gone]
    kept = ~ledger.erased
    pd.testing.assert_frame_equal(ledger.samples[kept], plain.ledger.samples[kept])
    with pytest.raises(UnknownSample, match="1 samples are not in"):
        ledger.positions(["s2", "s4"])
    for name in ledger.manifest.entries:
        ledger.check_rows(name)  # what is left is whole
    undone = ledger.steps_of(gone)
    assert own[1].alive(ledger.step_keys).tolist() == [step not in undone for step in range(15)]


def test_steps_that_were_undone_are_not_undone_twice(plain):
    settings, steps = UnlearningSettings(method="amnesiac-batch"), plain.ledger.steps_of
    met = next(k for k in range(4, N) if set(steps([k])) & set(steps([3])))
    first = unlearn(settings, plain.ledger, plain.weights, [3])
    second = unlearn(settings, plain.ledger, plain.weights, [met], before=[3], master=first.master)
    both = unlearn(settings, plain.ledger, plain.weights, [3, met])
    assert first.rows + second.rows == both.rows < len(steps([3])) + len(steps([met]))
    assert hash_tensors(second.master) == hash_tensors(both.master)


def test_a_ledger_whose_record_lost_its_store_is_refused(own):
    path = own[0].folder / "manifest.json"
    stored = json.loads(path.read_text())
    stored["manifest"]["store_id"] = None
    path.write_text(json.dumps(stored))
    with pytest.raises(DamagedStore, match="was altered"):
        open_ledger(own[0].folder)
