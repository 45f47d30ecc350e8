"""Low-rank settled deltas of wide layers: the products without the matrices, against the matrices."""

import numpy as np
import pytest
import torch

from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import truncate
from amnesiac.ledger.implicit import SettledSums, pays, runs

N, VISITS, D_OUT, D_IN = 7, 4, 5, 6


def sums(by_class, factors=1):
    generator = torch.Generator().manual_seed(1)
    shares = Factors(
        torch.randn(N, VISITS, factors, D_OUT, generator=generator),
        torch.randn(N, VISITS, factors, D_IN, generator=generator),
    )
    table = {label: torch.rand(3, D_OUT, D_IN, generator=generator) for label in (None, 0, 1)}
    keys = np.array([[0, 1, 1, 2]] * 5 + [[0, 0, 1, 2]] * 2)
    if by_class:
        keys = np.concatenate([keys, np.array([0, 0, 0, 1, 1, 1, 1])[:, None]], 1)
    return SettledSums(shares, keys, by_class, lambda label: table[label]), shares, keys, table


def formed(shares, keys, table, by_class):
    """Visit by visit, outer product by outer product."""
    whole = torch.zeros(N, D_OUT, D_IN)
    for i in range(N):
        for v in range(VISITS):
            weights = table[int(keys[i, -1]) if by_class else None][keys[i, v]]
            whole[i] += weights * (shares.left[i, v].T @ shares.right[i, v])
    return whole


@pytest.mark.parametrize("factors", [1, 2])
@pytest.mark.parametrize("by_class", [False, True])
def test_products_are_those_of_the_formed_matrices(by_class, factors):
    own, shares, keys, table = sums(by_class, factors)
    whole = formed(shares, keys, table, by_class)
    x, y = torch.randn(N, 2, D_IN), torch.randn(N, 2, D_OUT)
    torch.testing.assert_close(own.forth(x), x @ whole.transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.back(y), y @ whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by_class", [False, True])
def test_the_truncation_is_that_of_the_formed_matrices(by_class):
    own, shares, keys, table = sums(by_class)
    expected = truncate(formed(shares, keys, table, by_class), 2)
    found = own.truncated(2)
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-3, atol=1e-4)
    assert found.left.shape == (N, 2, D_OUT) and found.right.shape == (N, 2, D_IN)


def test_it_is_for_wide_layers_and_small_ranks():
    assert pays(100_480, 2) and not pays(1_290, 2) and not pays(100_480, 8)
    assert runs(np.array([[0, 1], [0, 1], [0, 2], [1, 2]])) == [(0, 2), (2, 3), (3, 4)]
