"""Low-rank settled deltas of wide layers: the products without the matrices, against the matrices."""

import numpy as np
import pytest
import torch

from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import truncate
from amnesiac.ledger.implicit import SettledSums, in_segments, pays, runs

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
    expected = truncate(formed(shares, keys, table, by_class), 2, iterations=100)
    found = own.truncated(2, iterations=100)
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-3, atol=1e-4)
    assert found.left.shape == (N, 2, D_OUT) and found.right.shape == (N, 2, D_IN)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_start_is_of_the_samples_so_that_none_ends_far_from_the_best(rank):
    """From one start for all, some of many samples have nothing of their largest direction in it."""
    n, visits, d_out, d_in = 400, 6, 40, 50
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(n, 1, 1, d_in, generator=generator)  # visits of a sample are alike
    right = base + 0.3 * torch.randn(n, visits, 1, d_in, generator=generator)
    left = torch.randn(n, 1, 1, d_out, generator=generator) + torch.randn(n, visits, 1, d_out, generator=generator)
    scale = torch.logspace(0, -3, d_out)[:, None] * torch.logspace(0, -3, d_in)
    weights = torch.stack([1.0 / (1.0 + 100.0 * steps * scale) for steps in (3.0, 2.0, 1.0)])
    keys = np.tile([0, 0, 1, 1, 2, 2], (n, 1))
    own = SettledSums(Factors(left, right), keys, False, lambda label: weights)
    whole = torch.einsum("nvko,vod,nvkd->nod", left, weights[keys[0]], right)
    best = torch.linalg.svdvals(whole)[:, :rank].square().sum(1)
    kept = own.truncated(rank).dense().square().sum((1, 2))
    assert float((kept / best).min()) > 0.9 and float((kept / best).mean()) > 0.98


def test_visits_of_a_segment_add_up_where_the_inputs_stay_the_same():
    own, shares, keys, table = sums(True, 2)
    same = Factors(shares.left, shares.right[:, :1].expand_as(shares.right))
    apart, joined = (form(SettledSums(same, keys, True, own.weights)) for form in (lambda one: one, in_segments))
    assert joined.shares.left.shape == (N, 3, 2, D_OUT) and apart.shares.left.shape == (N, VISITS, 2, D_OUT)
    x, y = torch.randn(N, 2, D_IN), torch.randn(N, 2, D_OUT)
    torch.testing.assert_close(joined.forth(x), apart.forth(x))
    torch.testing.assert_close(joined.back(y), apart.back(y))


def test_it_is_for_wide_layers_and_small_ranks():
    assert pays(100_480, 2) and not pays(1_290, 2) and not pays(100_480, 8)
    assert runs(np.array([[0, 1], [0, 1], [0, 2], [1, 2]])) == [(0, 2), (2, 3), (3, 4)]
