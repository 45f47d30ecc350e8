"""Equation (2) against slow twins: product form, step-by-step equation (1), real retraining."""

import pytest
import torch

from amnesiac.capture.blocks import Block
from amnesiac.curvature import LayerCurvature, settle
from amnesiac.curvature.matrices import to_flat, to_matrix
from amnesiac.curvature.whitening import Whitening, whiten

ALL = torch.ones(1)


def orthonormal(size, seed):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
        0
    ]


def made_layer(segments=3, classes=2):
    generator = torch.Generator().manual_seed(0)
    eigenvalues = torch.rand(segments, classes, 3, 4, generator=generator, dtype=torch.float64)
    return LayerCurvature(orthonormal(3, 1), orthonormal(4, 2), eigenvalues)


@pytest.mark.parametrize("whitened", [False, True])
def test_equals_the_product_form_of_equation_2(whitened):
    """W_s = gain_s times the later decays, written out; with whitening that is the same in all segments."""
    layer = made_layer()
    contributions = torch.randn(3, 3, 4, dtype=torch.float64)
    retained, rates, kappa = torch.tensor([0.5, 0.25]), (0.3, 2.0, 0.7), 1.7
    root = torch.rand(3, 4, dtype=torch.float64) + 0.5 if whitened else torch.ones(3, 4, dtype=torch.float64)
    z = [kappa * rates[s] * (0.5 * layer.eigenvalues[s, 0] + 0.25 * layer.eigenvalues[s, 1]) for s in range(3)]
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for s in range(3):
        weight = (1 - torch.exp(-z[s])) / z[s]
        for later in z[s + 1 :]:
            weight = weight * torch.exp(-later)
        expected += weight * (layer.q_out.T @ (root * contributions[s]) @ layer.q_in)
    expected = root * (layer.q_out @ expected @ layer.q_in.T)
    whitenings = [Whitening(root, None, None)] * 3 if whitened else None
    found = settle(layer, whitenings, contributions, rates, retained, kappa)
    torch.testing.assert_close(found, expected)


def test_without_curvature_it_is_the_plain_sum():
    layer = LayerCurvature(orthonormal(3, 1), orthonormal(4, 2), torch.zeros(3, 1, 3, 4, dtype=torch.float64))
    contributions = torch.randn(3, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(settle(layer, None, contributions, (1.0, 1.0, 1.0), ALL, 1.0), contributions.sum(0))


def test_layers_without_a_matrix_settle_in_their_own_coordinates():
    layer = LayerCurvature(None, None, torch.full((1, 1, 5), 2.0, dtype=torch.float64))
    found = settle(layer, None, torch.ones(1, 5, dtype=torch.float64), (1.0,), ALL, 1.0)
    torch.testing.assert_close(found, torch.full((5,), (1 - torch.exp(torch.tensor(-2.0)).item()) / 2.0).double())


def test_equals_equation_1_step_by_step_for_small_steps():
    """Invariant 5 of method.md §8: the averaged form against the recursion with the same operator."""
    layer, steps = made_layer(segments=2, classes=1), 400
    rate, gradients = 0.002, torch.randn(2, 3, 4, dtype=torch.float64)
    delta = torch.zeros(3, 4, dtype=torch.float64)
    for segment in range(2):
        curvature, gradient = layer.eigenvalues[segment, 0], layer.q_out.T @ gradients[segment] @ layer.q_in
        for _ in range(steps):
            delta = delta - rate * curvature * delta + rate * gradient
    expected = layer.q_out @ delta @ layer.q_in.T
    found = settle(layer, None, steps * rate * gradients, (steps * rate,) * 2, ALL, 1.0)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)


def regression_errors(segment_counts, n=60, d=5, epochs=128, rate=0.02, batch=12, forget=9):
    """Relative error against retraining of linear regression, by number of segments; the plain sum's last."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.tensor([1.5, 1.0, 0.6, 0.3, 0.1])
    y = x @ torch.ones(d, dtype=torch.float64) + torch.randn(n, generator=generator, dtype=torch.float64)
    orders = [torch.randperm(n, generator=generator) for _ in range(epochs)]
    retained = torch.arange(n) >= forget

    def train(members):
        w, shares = torch.zeros(d, dtype=torch.float64), []
        for order in orders:
            for rows in order.split(batch):
                gradients = (x[rows] @ w - y[rows])[:, None] * x[rows] / batch
                shares.append(rate * gradients[~retained[rows]].sum(0))
                w = w - rate * gradients[members[rows]].sum(0)
        return w, torch.stack(shares)

    original, shares = train(torch.ones(n, dtype=torch.bool))
    target, _ = train(retained)
    values, vectors = torch.linalg.eigh(x[retained].T @ x[retained] / n)
    errors = []
    for count in segment_counts:
        layer = LayerCurvature(torch.eye(1).double(), vectors, values.expand(count, 1, 1, d))
        parts = shares.reshape(count, -1, d).sum(1).unsqueeze(1)
        delta = settle(layer, None, parts, (rate * len(shares) / count,) * count, ALL, 1.0)
        errors.append(float((original + delta[0] - target).norm() / (original - target).norm()))
    return errors, float((original + shares.sum(0) - target).norm() / (original - target).norm())


def test_on_a_quadratic_it_approaches_retraining_as_segments_get_shorter():
    """Invariant 6 of method.md §8."""
    errors, plain = regression_errors((1, 4, 64))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 < 1.0 < plain


def test_matrix_form_of_parameters_and_back():
    for parameters, shapes, matrix in [
        (("w", "b"), ((3, 4), (3,)), (3, 5)),
        (("w",), ((3, 4),), (3, 4)),
        (("w", "b"), ((2, 1, 2, 2), (2,)), (2, 5)),
        (("w",), ((7,),), None),
    ]:
        block = Block("l", parameters, shapes, matrix, None)
        flat = torch.arange(float(block.numel))
        assert torch.equal(to_flat(block, to_matrix(block, flat)), flat)


def test_whitening_clips_what_hardly_sees_a_gradient():
    block = Block("l", ("w",), ((2, 3),), (2, 3), None)
    scaling = torch.tensor([1.0, 4.0, 9.0, 16.0, 1e8, 1e8])
    whitening = whiten(block, scaling, 0.75, 1e-8)
    assert torch.equal(whitening.root, torch.tensor([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]]))
    torch.testing.assert_close(whitening.left[:, None] * whitening.right, whitening.root, rtol=0.35, atol=0.0)
