"""Weights of equation (2) as a few outer products, against the weights themselves."""

import pytest
import torch

from amnesiac.curvature import Basis, Kappa, LayerCurvature, damping
from amnesiac.curvature.thin import TOLERANCE, thin

SEGMENTS, D_OUT, D_IN = 3, 40, 90


def eigenvalues(noise, seed=0):
    """Nearly an outer product, over six orders of magnitude, each measured with some noise."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.logspace(0, -3, D_OUT), torch.logspace(0, -3, D_IN)
    drawn = torch.randn(SEGMENTS, D_OUT, D_IN, generator=generator) * noise
    return 3.0 * left[:, None] * right * drawn.exp()


def weights_of(values, curvature_of, kappa):
    layer = LayerCurvature(Basis(torch.eye(D_OUT), torch.eye(D_IN)), values, None, (1.0,) * SEGMENTS)
    return damping(curvature_of([layer], (2.0, 5.0, 1.0)), 0, Kappa(kappa, kappa))


def dense(found):
    return found.factors.left.transpose(1, 2) @ found.factors.right


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("kappa", [0.5, 2.0, 8.0])
def test_settled_contributions_are_within_the_tolerance(kappa, noise, curvature_of):
    """Contributions drawn with the eigenvalues' row and column means as mean squares, over many draws."""
    values = eigenvalues(noise)
    weights = weights_of(values, curvature_of, kappa)
    found = thin(weights, values)
    assert found is not None
    mean = values.mean(0)
    sizes = ((mean.mean(1) / mean.mean() + 0.01)[:, None] * (mean.mean(0) / mean.mean() + 0.01)).sqrt()
    generator = torch.Generator().manual_seed(1)
    drawn = sizes * torch.randn(300, 1, D_OUT, D_IN, generator=generator)
    error = ((dense(found) - weights) * drawn).square().mean(0).sum((1, 2)).sqrt()
    size = (weights * drawn).square().mean(0).sum((1, 2)).sqrt()
    assert (error < 1.05 * TOLERANCE * size).all()
    assert found.rank == max(found.ranks) < min(D_OUT, D_IN) // 2


def test_as_few_as_the_tolerance_allows(curvature_of):
    """One less in each segment, and it is missed."""
    values = eigenvalues(0.0)
    weights, found = weights_of(values, curvature_of, 2.0), thin(weights_of(values, curvature_of, 2.0), values)
    mean = values.mean(0)
    rows, columns = ((m / mean.mean() + 0.01).sqrt() for m in (mean.mean(1), mean.mean(0)))
    for own, rank in zip(weights, found.ranks, strict=True):
        scaled = torch.linalg.svdvals((own * rows[:, None] * columns).double())
        rest = (scaled.square().flip(0).cumsum(0).flip(0) / scaled.square().sum()).sqrt()
        assert float(rest[rank]) <= 1.001 * TOLERANCE < 1.01 * float(rest[rank - 1])


def test_strongly_damped_directions_stay_damped(curvature_of):
    """A weight of nearly nothing where contributions are largest: an error of W alone would not show it."""
    values = eigenvalues(0.0)
    weights = weights_of(values, curvature_of, 4.0)
    found = dense(thin(weights, values))
    assert float(weights[0, 0, 0]) < 1e-9
    assert float(found[0, 0, 0].abs()) < 0.01


def test_noise_has_no_few_outer_products():
    noise = torch.rand(1, 60, 80, generator=torch.Generator().manual_seed(0))
    assert thin(noise, torch.ones(1, 60, 80)) is None


def test_without_curvature_all_weigh_the_same():
    found = thin(torch.ones(2, 5, 7), torch.zeros(2, 5, 7))
    assert found.ranks == (1, 1)
    torch.testing.assert_close(dense(found), torch.ones(2, 5, 7))


def test_columns_are_those_of_the_weights(curvature_of):
    values = eigenvalues(0.0)
    found, chosen = thin(weights_of(values, curvature_of, 2.0), values), torch.tensor([3, 4, 80])
    torch.testing.assert_close(dense(found.columns(chosen)), dense(found)[..., chosen])
    assert found.columns(torch.arange(D_IN)) is found
