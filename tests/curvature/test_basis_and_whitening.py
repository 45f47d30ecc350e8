"""Coordinates: what goes in comes out as the adjoint, blocks diagonalise, the preconditioner's mean is harmonic."""

import numpy as np
import pytest
import torch

from amnesiac.capture.attribution import Rule
from amnesiac.capture.blocks import Block
from amnesiac.capture.layers import Factors
from amnesiac.curvature import Basis
from amnesiac.curvature.basis import blocks_of, eigenvectors
from amnesiac.curvature.measure import _decays
from amnesiac.curvature.whitening import Whitening, mean_denominators, unit, whiten

MATRIX = Block("l", ("w",), ((2, 3),), (2, 3), None)
NORM = Block("l", ("w", "b"), ((3,), (3,)), None, None)


@pytest.mark.parametrize("kind", ["matrix", "root", "plain"])
def test_out_of_is_the_adjoint_of_into(kind):
    """A gradient and a change of weights have the same product in both coordinates: steps stay gradient steps."""
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(k, k, generator=generator) for k in (3, 4)] if kind == "matrix" else [None, None]
    basis = Basis(*sides, torch.rand(3, 4, generator=generator) if kind == "root" else None)
    gradient, change = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    torch.testing.assert_close((basis.into(gradient) * change).sum(), (gradient * basis.out_of(change)).sum())
    assert basis.into(gradient.double()).dtype == basis.out_of(change.double()).dtype == torch.float64


@pytest.mark.parametrize(("largest", "sizes"), [(10, [10]), (4, [4, 3, 3]), (1, [1] * 10)])
def test_a_block_eigenbasis_is_orthogonal_and_diagonalises_its_blocks(largest, sizes):
    x = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    matrix = x.T @ x
    vectors = eigenvectors(matrix, blocks_of(matrix, largest))
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(10), rtol=0.0, atol=1e-5)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    together = owner[:, None] == owner
    assert not vectors[~together].any()
    within = (vectors.T @ matrix @ vectors)[together & ~torch.eye(10, dtype=torch.bool)]
    assert not within.numel() or float(within.abs().max()) < 1e-3 * float(matrix.abs().max())


def test_what_saw_nothing_is_left_out_of_the_blocks_where_it_is_much():
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 0.0
    assert blocks_of(x.T @ x, 20) is None, "one coordinate in twenty isn't worth the detour"
    x[:, [7, 19]] = 0.0
    (seen,) = blocks_of(x.T @ x, 20)
    assert seen.tolist() == [k for k in range(20) if k not in (3, 7, 19)]


def test_what_saw_nothing_is_left_out_of_the_blocks_of_a_wide_factor():
    x = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    x[:, [0, 4, 9]] = 0.0
    matrix = x.T @ x
    parts = blocks_of(matrix, 4)
    assert [part.tolist() for part in parts] == [[1, 2, 3, 5], [6, 7, 8]]
    vectors = eigenvectors(matrix, parts)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(10), rtol=0.0, atol=1e-5)
    assert torch.equal(vectors[[0, 4, 9]], torch.eye(10)[[0, 4, 9]])
    one = (parts[0][:, None], parts[0])
    torch.testing.assert_close(eigenvectors(matrix, parts)[one], torch.linalg.eigh(matrix[one])[1])
    assert torch.equal(eigenvectors(torch.zeros(10, 10), blocks_of(torch.zeros(10, 10), 4)), torch.eye(10))


@pytest.mark.parametrize("double", [False, True])
def test_block_by_block_is_the_whole_product(double):
    """A whitened basis of blocks: the same coordinates, whether the blocks are known or not."""
    generator = torch.Generator().manual_seed(0)
    sides, parts = [], []
    for size, largest in ((4, 3), (6, 2)):
        x = torch.randn(50, size, generator=generator)
        x[:, 1] = 0.0
        parts.append(blocks_of(x.T @ x, largest))
        scale = torch.rand(size, 1, generator=generator) + 0.5
        sides.append(scale * eigenvectors(x.T @ x, parts[-1]))
    known, unknown = Basis(*sides, None, *parts), Basis(*sides)
    gradients = torch.randn(3, 2, 4, 6, generator=generator)
    gradients = gradients.double() if double else gradients
    torch.testing.assert_close(known.into(gradients), unknown.into(gradients))
    torch.testing.assert_close(known.out_of(gradients), unknown.out_of(gradients))
    factors = Factors(torch.randn(3, 5, 4, generator=generator), torch.randn(3, 5, 6, generator=generator))
    torch.testing.assert_close(known.factors_into(factors).dense(), unknown.into(factors.dense()))
    torch.testing.assert_close(known.factors_out_of(factors).dense(), unknown.out_of(factors.dense()))
    assert (known.work, unknown.work) == (3**2 + 2**2 + 2**2 + 1, 4**2 + 6**2)


def test_steps_in_which_a_coordinate_has_seen_nothing_do_not_rule_its_mean():
    """P_t is 1 / eps there: the arithmetic mean over ten steps would be ten million."""
    steps = np.full((10, 2), 4.0, np.float32)
    steps[0, 0] = 1e8
    found = mean_denominators(steps, (0, 5, 10)).reciprocal()
    torch.testing.assert_close(found, torch.tensor([[5.0, 4.0], [4.0, 4.0]]))


def test_whitening_clips_what_hardly_sees_a_gradient():
    scaling = torch.tensor([1.0, 4.0, 9.0, 16.0, 1e8, 1e8])
    whitening = whiten(NORM, scaling.reciprocal()[None], 0.75, 1e-8)
    torch.testing.assert_close(whitening.root, torch.tensor([1.0, 2.0, 3.0, 3.0, 3.0, 3.0]))
    assert whitening.pace == pytest.approx((1.0,))


def test_the_shape_of_a_matrix_is_exact_where_it_has_rank_one():
    left, right = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0, 0.5])
    whitening = whiten(MATRIX, (left[:, None] * right).reciprocal().reshape(1, -1), 1.0, 1e-8)
    torch.testing.assert_close((whitening.left[:, None] * whitening.right).square(), left[:, None] * right)


def test_pace_says_how_the_preconditioner_grows_from_segment_to_segment():
    """Its shape is that of the whole run's harmonic mean: of P and 2 P, that is 4/3 P."""
    first = torch.rand(6, generator=torch.Generator().manual_seed(0)) + 0.5
    whitening = whiten(NORM, torch.stack([first, first / 2]), 1.0, 1e-8)
    assert whitening.pace == pytest.approx((0.75, 1.5), rel=1e-5)
    torch.testing.assert_close(whitening.root.square(), first.reciprocal() * 4 / 3)


def test_sgd_has_nothing_to_whiten():
    assert unit(MATRIX, 3).pace == (1.0, 1.0, 1.0)
    assert torch.equal(unit(MATRIX, 3).left[:, None] * unit(MATRIX, 3).right, torch.ones(2, 3))
    assert torch.equal(unit(NORM, 2).root, torch.ones(6))


def test_weight_decay_passes_through_adams_preconditioner_but_not_through_that_of_adamw():
    whitening = Whitening(torch.tensor([1.0, 3.0]), torch.tensor([2.0]), None, (1.0, 0.5))
    assert _decays(Rule("sgd"), (2.0, 4.0), 0.1, whitening) == pytest.approx((0.2, 0.4))
    assert _decays(Rule("adamw"), (2.0, 4.0), 0.1, whitening) == pytest.approx((0.2, 0.4))
    assert _decays(Rule("adam"), (2.0, 4.0), 0.1, whitening) == pytest.approx((0.2 * 20.0, 0.4 * 0.5 * 20.0))
