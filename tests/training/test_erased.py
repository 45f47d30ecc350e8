"""Nothing is trained on the zeros that stand for erased samples."""

import dataclasses

import numpy as np
import pytest
import torch

from amnesiac.data import Split
from amnesiac.errors import KeyDestroyed
from amnesiac.settings import CaptureSettings, RepairSettings
from amnesiac.training import CapturePlan, repair, retrain_without, train_with_capture
from amnesiac.unlearning import ledgers_for

GONE = [2, 7]


@pytest.fixture
def split(data_of):
    made = data_of()
    ids = tuple(f"s{k}" for k in range(len(made.labels)))
    return Split("train", made.inputs, made.labels, ids, ids)


@pytest.fixture
def erased(split):
    """The same, two of the samples erased, their inputs zeros."""
    inputs = split.inputs.clone()
    inputs[GONE] = 0.0
    flags = np.isin(np.arange(len(split)), GONE)
    return dataclasses.replace(split, inputs=inputs, erased=flags)


def test_capture_is_refused_before_anything_is_written(erased, build, spec_of, tmp_path):
    capture = CaptureSettings(methods=("per-sample-delta",))
    ids, folders = erased.sample_ids, (tmp_path / "ledger", tmp_path / "scratch")
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, *folders)
    with pytest.raises(
        KeyDestroyed, match=r"2 of 11 samples .* the first at position 2: .*Run `amnesiac prepare` again"
    ):
        train_with_capture(spec_of(), build, erased, plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forget", [[], [2], [0, 7]])
def test_retraining_and_repair_are_refused_unless_the_erased_are_forgotten(forget, erased, build, spec_of):
    match = r"1 of 11|2 of 11.*Add them to the samples to forget"
    with pytest.raises(KeyDestroyed, match=match):
        retrain_without(spec_of(), build, erased, forget)
    with pytest.raises(KeyDestroyed, match=match):
        repair(spec_of(), build, build().state_dict(), erased, forget, RepairSettings(epochs=0.5))


def test_without_them_the_result_is_what_it_was_before_the_erasure(erased, split, build, spec_of):
    forget = [*GONE, 4]
    ours, theirs = (retrain_without(spec_of(), build, data, forget).weights for data in (erased, split))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    mended = [repair(spec_of(), build, ours, data, forget, RepairSettings(epochs=1)) for data in (erased, split)]
    assert all(torch.equal(mended[0].weights[name], mended[1].weights[name]) for name in ours)


def test_flags_of_another_length(split):
    with pytest.raises(ValueError, match="3 flags for 11 samples"):
        dataclasses.replace(split, erased=np.zeros(3, bool))
