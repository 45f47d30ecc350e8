"""Exact sums at the largest sizes and values that the grid promises."""

import json

import numpy as np
import pytest
import torch

from amnesiac.capture.blocks import Block
from amnesiac.errors import StoreError
from amnesiac.ledger.codecs import SampleRows, SegmentRows, SubsetRows, grid_exponents
from amnesiac.ledger.reading import codec_of
from amnesiac.ledger.settled_codec import QuantisedRows

BLOCK = Block("l", ("l.weight",), ((2, 1),), (2, 1), 1)


@pytest.mark.parametrize("n", [7, 8000, 100_000])
def test_sums_of_values_at_the_bound_are_exact_in_any_grouping(n):
    codec = SampleRows((grid_exponents(BLOCK, 0.999, 0.999, n),))
    generator = torch.Generator().manual_seed(0)
    rows = codec.encode([0.9 + 0.099 * torch.rand(n, 3, generator=generator)])
    whole, index = codec.total(rows, np.arange(n)), np.arange(n)
    for seed in range(10):
        order, cut = np.random.default_rng(seed).permutation(n), n // 3 + seed
        parts = [codec.total(rows[part], index[: len(part)]) for part in (order[:cut], order[cut:])]
        assert np.array_equal(parts[0] + parts[1], whole)


@pytest.mark.parametrize(("n", "precision"), [(100, 1e-6), (60_000, 1e-4)])
def test_rounding_costs_little(n, precision):
    codec = SampleRows((grid_exponents(BLOCK, 1.0, 1.0, n),))
    parts = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    total = codec.total(codec.encode([parts]), np.arange(50))
    exact = (parts[:, :2].double().T @ parts[:, 2].double()).numpy()
    assert np.abs(total - exact).max() < precision * np.abs(exact).max()


def no_file(name):
    raise AssertionError(f"{name} was asked for")


@pytest.mark.parametrize(
    "codec",
    [
        SampleRows((grid_exponents(BLOCK, 0.5, 3.0, 10),)),
        SegmentRows(SampleRows((grid_exponents(BLOCK, 0.5, 3.0, 10),)), 4),
        SubsetRows(((2, 3), (4,)), 0.5, True),
        QuantisedRows((BLOCK,), 16),
    ],
)
def test_codecs_survive_the_manifest(codec):
    back = codec_of(json.loads(json.dumps(codec.to_json())), no_file)
    assert back == codec
    assert back.row_bytes == codec.row_bytes


def test_a_foreign_codec_is_refused():
    with pytest.raises(StoreError, match="unknown row codec 'magic'.*another version"):
        codec_of({"codec": "magic"}, no_file)
