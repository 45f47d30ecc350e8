"""Truncation of settled deltas against the singular value decomposition."""

import pytest
import torch

from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import compress, truncate


def made(spectrum, n=4, d_out=12, d_in=20, seed=0):
    """Matrices with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    k = len(spectrum)
    left = torch.linalg.qr(torch.randn(n, d_out, k, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(n, d_in, k, generator=generator))[0]
    return (left * torch.tensor(spectrum)) @ right.transpose(1, 2)


def test_it_is_exact_where_the_rank_suffices():
    matrices = made([3.0, 1.0, 0.2])
    for rank in (3, 5):
        found = truncate(matrices, rank)
        assert found.left.shape == (4, rank, 12)
        assert found.right.shape == (4, rank, 20)
        torch.testing.assert_close(found.dense(), matrices, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_is_nearly_the_best_of_its_rank(rank):
    matrices = made([4.0**-k for k in range(12)])
    best = torch.linalg.svdvals(matrices)[:, rank:].norm(dim=1)
    error = (truncate(matrices, rank).dense() - matrices).norm(dim=(1, 2))
    assert (error < 1.1 * best).all()
    assert (error > 0.999 * best).all()


def test_no_matrix_ends_far_from_the_best_of_its_rank():
    """Of many matrices some have nothing of their largest direction in any one start for all."""
    matrices = made([1.0, *[0.6] * 11], n=2000)
    kept = truncate(matrices, 1).dense().square().sum((1, 2))
    assert float(kept.min()) > 0.6
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    outer = Factors((left * values[:, None]).transpose(1, 2).contiguous(), right)
    assert float(compress(outer, 1).dense().square().sum((1, 2)).min()) > 0.6


def test_rows_that_cancel_out_are_no_start_and_no_end():
    rows = torch.tensor([[[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [0.0, 1.0, 3.0]]])
    factors = Factors(torch.tensor([[[9.0, 0.0], [9.0, 0.0], [0.0, 1.0]]]), rows)
    torch.testing.assert_close(compress(factors, 1).dense(), factors.dense(), rtol=0.0, atol=1e-4)


def test_equal_rows_dont_hide_the_second_direction():
    rows = made([1.0, 0.1], n=3, d_out=2)
    matrices = torch.cat([rows[:, :1], rows[:, :1], 0.1 * rows[:, 1:]], 1)
    torch.testing.assert_close(truncate(matrices, 2).dense(), matrices, rtol=0.0, atol=1e-5)


def test_right_factors_are_orthonormal_and_left_ones_carry_the_rest():
    matrices = made([2.0**-k for k in range(12)])
    found = truncate(matrices, 3)
    torch.testing.assert_close(
        found.right @ found.right.transpose(1, 2), torch.eye(3).expand(4, 3, 3), rtol=0.0, atol=1e-5
    )
    torch.testing.assert_close(found.left, found.right @ matrices.transpose(1, 2))


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_the_scale_doesnt_matter(scale):
    matrices = made([2.0, 1.0, 0.3])
    torch.testing.assert_close(
        truncate(matrices * scale, 2).dense() / scale, truncate(matrices, 2).dense(), rtol=1e-4, atol=1e-5
    )


def test_samples_dont_meet_and_the_result_is_repeatable():
    matrices = made([2.0**-k for k in range(12)])
    whole, alone = truncate(matrices, 2), truncate(matrices[2:3], 2)
    torch.testing.assert_close(whole.dense()[2:3], alone.dense(), rtol=1e-4, atol=1e-5)
    assert torch.equal(whole.left, truncate(matrices, 2).left)


def test_a_sample_that_did_nothing_stays_zero():
    matrices = made([1.0, 0.5])
    matrices[1] = 0.0
    found = truncate(matrices, 2)
    assert not found.left[1].any()
    assert torch.isfinite(found.dense()).all()
    torch.testing.assert_close(found.dense(), matrices, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_outer_products_are_truncated_as_their_sum_is(rank):
    generator = torch.Generator().manual_seed(3)
    scale = 3.0 ** -torch.arange(9.0)[:, None]
    factors = Factors(
        torch.randn(5, 9, 12, generator=generator) * scale, torch.randn(5, 9, 20, generator=generator) * scale
    )
    whole, found = truncate(factors.dense(), rank, 40), compress(factors, rank, 40)
    assert found.left.shape == (5, rank, 12)
    torch.testing.assert_close(found.dense(), whole.dense(), rtol=1e-4, atol=1e-4)
    assert float((found.dense() - factors.dense()).norm()) < 0.5 * float(factors.dense().norm())
