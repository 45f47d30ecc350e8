"""Equation (2) against slow twins: product form, step-by-step equation (1), real retraining."""

import pytest
import torch

from amnesiac.capture.blocks import Block
from amnesiac.curvature import Basis, Kappa, LayerCurvature, damping, settle
from amnesiac.curvature.damping import settle_inside
from amnesiac.curvature.matrices import to_flat, to_matrix

ONE = Kappa(1.0, 1.0)
RATES, DECAYS = (0.3, 2.0, 0.7), (0.05, 0.0, 0.2)


@pytest.mark.parametrize("forgotten", [None, (0.5, 0.25)])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
def test_equals_the_product_form_of_equation_2(layer, whitened, forgotten, curvature_of, layer_of):
    """W_s = pace times gain_s times the later decays, written out; hidden layers have their own kappa."""
    layers = [layer_of(seed=seed, whitened=whitened) for seed in (10, 20)]
    curvature, own = curvature_of(layers, RATES, ((0.0,) * 3, DECAYS)), layers[layer]
    contributions = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    kappa, decays = (1.7, (0.0,) * 3) if layer == 0 else (0.6, DECAYS)
    z = []
    for s in range(3):
        value = own.total[s].clone()
        for label, share in enumerate(forgotten or ()):
            value = value - share * own.by_class[s, label]
        z.append(kappa * RATES[s] * own.pace[s] * value.clamp_min(0.0) + decays[s])
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for s in range(3):
        weight = own.pace[s] * (1 - torch.exp(-z[s])) / z[s]
        for later in z[s + 1 :]:
            weight = weight * torch.exp(-later)
        expected += weight * (own.basis.left.T @ contributions[s] @ own.basis.right)
    expected = own.basis.left @ expected @ own.basis.right.T
    shares = None if forgotten is None else torch.tensor(forgotten)
    found = settle(curvature, layer, contributions, Kappa(output=0.6, hidden=1.7), shares)
    torch.testing.assert_close(found, expected)
    inside = settle_inside(curvature, layer, own.basis.into(contributions), Kappa(0.6, 1.7), shares)
    torch.testing.assert_close(inside, expected)


def test_without_curvature_it_is_the_plain_sum(curvature_of, layer_of):
    flat = LayerCurvature(layer_of().basis, torch.zeros(3, 3, 4, dtype=torch.float64), None, (1.0,) * 3)
    contributions = torch.randn(3, 3, 4, dtype=torch.float64)
    found = settle(curvature_of([flat], (1.0, 1.0, 1.0)), 0, contributions, ONE)
    torch.testing.assert_close(found, contributions.sum(0))


def test_layers_without_a_matrix_settle_in_their_own_coordinates(curvature_of):
    layer = LayerCurvature(
        Basis(None, None, torch.full((5,), 3.0)), torch.full((1, 5), 2.0, dtype=torch.float64), None, (0.5,)
    )
    found = settle(curvature_of([layer], (1.0,)), 0, torch.ones(1, 5, dtype=torch.float64), ONE)
    gain = 1 - torch.exp(torch.tensor(-1.0, dtype=torch.float64))  # z = rate 1 x pace .5 x eigenvalue 2
    torch.testing.assert_close(found, (9.0 * 0.5 * gain).expand(5))


def test_only_the_last_linear_map_is_the_output_layer(curvature_of, layer_of):
    norm = LayerCurvature(Basis(None, None, torch.ones(5)), torch.ones(3, 5), None, (1.0,) * 3)
    curvature = curvature_of([layer_of(), layer_of(), norm], RATES)
    assert curvature.output_layer == 1
    for layer, changed in ((0, "hidden"), (1, "output"), (2, "hidden")):
        other = Kappa(**({"output": 1.0, "hidden": 1.0} | {changed: 2.0}))
        unchanged = Kappa(other.hidden, other.output)
        assert not torch.equal(damping(curvature, layer, other), damping(curvature, layer, ONE))
        assert torch.equal(damping(curvature, layer, unchanged), damping(curvature, layer, ONE))


def test_no_layer_is_taken_to_have_negative_curvature(curvature_of, layer_of):
    """Classes that share draws can add up to more than all of it."""
    layer = layer_of(segments=1)
    crowded = LayerCurvature(layer.basis, layer.total, layer.total[:, None].expand(-1, 2, -1, -1), (1.0,))
    found = damping(curvature_of([crowded], (1.0,)), 0, ONE, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_equals_equation_1_step_by_step_for_small_steps(curvature_of, layer_of):
    """Invariant 5 of method.md §8: the averaged form against the recursion with the same operator and weight decay."""
    layer, steps, rate, decay = layer_of(segments=2), 1600, 0.0005, 0.4
    gradients = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    delta = torch.zeros(3, 4, dtype=torch.float64)
    for segment in range(2):
        pull, gradient = layer.total[segment] + decay, layer.basis.into(gradients[segment])
        for _ in range(steps):
            delta = delta - rate * pull * delta + rate * gradient
    expected = layer.basis.out_of(delta)
    curvature = curvature_of([layer], (steps * rate,) * 2, ((steps * rate * decay,) * 2,))
    found = settle(curvature, 0, steps * rate * gradients, ONE)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)


def regression(decay=0.0, n=60, d=5, epochs=128, rate=0.02, batch=12, forget=9):
    """Linear regression trained with and without some samples: both weights, the samples' shares by step, the data."""
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
                w = w - rate * (gradients[members[rows]].sum(0) + decay * w)
        return w, torch.stack(shares)

    original, shares = train(torch.ones(n, dtype=torch.bool))
    return original, train(retained)[0], shares, x[retained].T @ x[retained] / n, rate


def regression_error(curvature_of, run, count, decay=0.0):
    """Of a deletion settled in `count` segments, relative to what retraining changes."""
    original, target, shares, fisher, rate = run
    values, vectors = torch.linalg.eigh(fisher)
    layer = LayerCurvature(Basis(torch.eye(1).double(), vectors), values.expand(count, 1, -1), None, (1.0,) * count)
    rates = (rate * len(shares) / count,) * count
    curvature = curvature_of([layer], rates, (tuple(decay * r for r in rates),))
    delta = settle(curvature, 0, shares.reshape(count, -1, shares.shape[1]).sum(1).unsqueeze(1), ONE)
    return float((original + delta[0] - target).norm() / (original - target).norm())


def test_on_a_quadratic_it_approaches_retraining_as_segments_get_shorter(curvature_of):
    """Invariant 6 of method.md §8."""
    run = regression()
    original, target, shares, _, _ = run
    errors = [regression_error(curvature_of, run, count) for count in (1, 4, 64)]
    plain = float((original + shares.sum(0) - target).norm() / (original - target).norm())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 < 1.0 < plain


def test_weight_decay_pulls_contributions_back_too(curvature_of):
    run = regression(decay=0.1)
    without, within = (regression_error(curvature_of, run, 64, decay) for decay in (0.0, 0.1))
    assert within < 0.015
    assert within < without / 4


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
