"""Splits are disjoint, complete, stratified and the seed's alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac.data import Samples
from amnesiac.data.splits import split_rows, stratified_draw
from amnesiac.errors import DataError
from amnesiac.settings import DataSettings


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0, 1), st.integers(0, 1000))
def test_draw_is_in_proportion_to_within_one_sample(labels: list[int], fraction: float, seed: int) -> None:
    values = np.array(labels)
    drawn = stratified_draw(values, fraction, seed, "test")
    assert len(drawn) == round(fraction * len(values))
    assert np.array_equal(drawn, np.unique(drawn))
    counts = np.bincount(values)
    assert np.all(np.abs(np.bincount(values[drawn], minlength=len(counts)) - counts * fraction) <= 1)


def test_splits_are_disjoint_and_complete(digits: Samples) -> None:
    splits = split_rows(digits, DataSettings(test_fraction=0.3, validation_fraction=0.25), seed=5)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 32, "validation": 10, "test": 18}
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(60))
    assert all(np.array_equal(rows, np.sort(rows)) for rows in splits.values())


def test_seed_decides(digits: Samples) -> None:
    draws = [split_rows(digits, DataSettings(), seed)["test"].tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_source_test_split_is_kept(digits: Samples) -> None:
    test = np.arange(60) % 6 == 0
    splits = split_rows(replace(digits, test=test), DataSettings(test_fraction=0.9, validation_fraction=0.2), seed=0)
    assert np.array_equal(splits["test"], np.flatnonzero(test))
    assert len(splits["validation"]) == 10


def test_class_left_without_training_samples(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"mnist-5k with data.test_fraction 1.0, .*: no training sample of class '0'"):
        split_rows(digits, DataSettings(test_fraction=1.0), seed=0)
