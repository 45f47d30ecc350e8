"""Exact sums at the largest sizes and values that the grid promises."""

import numpy as np
import pytest
import torch

from amnesiac.capture.blocks import Block
from amnesiac.errors import StoreError
from amnesiac.ledger.codecs import SampleRows, codec_from_json, grid_exponents

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


def test_codecs_survive_the_manifest_and_foreign_ones_are_refused():
    codec = SampleRows((grid_exponents(BLOCK, 0.5, 3.0, 10),))
    assert codec_from_json(codec.to_json()) == codec
    with pytest.raises(StoreError, match="unknown row codec 'magic'"):
        codec_from_json({"codec": "magic"})
