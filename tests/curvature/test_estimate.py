"""Measured curvature against slow twins."""

import pytest
import torch
from torch import nn

from amnesiac.capture.blocks import plan_block
from amnesiac.capture.layers import rule_for
from amnesiac.curvature import LayerCurvature, Probe, RunCurvature, estimate, from_bytes
from amnesiac.curvature.estimate import squares_by_class
from amnesiac.curvature.whitening import unit, whiten

LAYERS = {
    "linear": (nn.Linear(5, 4), (5,)),
    "conv": (nn.Conv2d(2, 3, 2), (2, 4, 4)),
    "norm": (nn.GroupNorm(1, 3), (3, 4)),
}


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_eigenvalues_are_mean_squares_in_the_basis(kind, whitened):
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    x, labels = torch.randn(9, *shape), torch.tensor([0, 1, 2, 0, 1, 2, 2, 2, 0])
    with torch.no_grad():
        gradient = rule_for(layer)(layer, x, torch.randn_like(layer(x)))
    block = plan_block("", layer, gradient, None)
    whitening = whiten(block, torch.rand(block.numel) + 0.5, 1.0, 1e-8) if whitened else unit(block)
    basis = None
    if block.matrix:
        basis = tuple(torch.linalg.qr(torch.randn(k, k))[0] for k in block.matrix)
        dense = gradient.dense() * whitening.left[:, None] * whitening.right
        expected = basis[0].T @ dense @ basis[1]
    else:
        expected = torch.cat([gradient[k].flatten(1) for k in ("weight", "bias")], 1) * whitening.root
    sums = torch.zeros(4, *(block.matrix or (block.numel,)))
    squares_by_class(sums, gradient, block, basis, whitening, labels)
    for label in range(4):
        torch.testing.assert_close(sums[label], expected[labels == label].square().sum(0))


def probe(samples=40, snapshots=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    inputs, labels = torch.randn(40, 1, 2, 3), torch.arange(40) % 3
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    return Probe(lambda: model, [weights] * snapshots, inputs, labels, 3, samples, 0), model


def blocks_of(model):
    x = torch.randn(2, 6)
    with torch.no_grad():
        return (plan_block("1", model[1], rule_for(model[1])(model[1], x, torch.randn(2, 3)), None),)


def test_true_fisher_of_a_linear_classifier():
    """Its trace is known: the mean over samples of |x, 1|^2 (1 - sum p^2). Labels are drawn, so over many draws."""
    sample, model = probe(snapshots=60)
    blocks = blocks_of(model)
    (layer,) = estimate(sample, blocks, [[unit(blocks[0])]] * 60)
    p = model(sample.inputs).softmax(1).detach()
    x = torch.cat([sample.inputs.flatten(1), torch.ones(40, 1)], 1)
    per_sample = x.square().sum(1) * (1 - p.square().sum(1))
    expected = torch.stack([per_sample[sample.labels == c].mean() for c in range(3)])
    torch.testing.assert_close(layer.eigenvalues.sum((2, 3)).mean(0), expected, rtol=0.08, atol=0.0)
    identity = layer.q_in.T @ layer.q_in
    torch.testing.assert_close(identity, torch.eye(7), rtol=0.0, atol=1e-5)


def test_estimates_are_repeatable_and_sub_samples_are_fair():
    sample, model = probe(samples=10)
    blocks = blocks_of(model)
    first, second = (estimate(sample, blocks, [[unit(blocks[0])]])[0] for _ in range(2))
    assert torch.equal(first.eigenvalues, second.eigenvalues)
    assert torch.equal(first.q_in, second.q_in)
    assert len(set(sample.rows(0).tolist())) == 10
    assert sample.rows(0).tolist() != sample.rows(1).tolist()


@pytest.mark.parametrize("adam", [False, True])
def test_what_is_stored_comes_back(adam):
    _, model = probe()
    blocks = blocks_of(model)
    layer = LayerCurvature(torch.eye(3), torch.eye(7), torch.rand(2, 3, 3, 7).bfloat16().float())
    whitenings = tuple((whiten(blocks[0], torch.rand(21) + 0.1, 0.9, 1e-8),) for _ in range(2)) if adam else None
    run = RunCurvature(blocks, (layer,), whitenings, (0.5, 0.25), (3, 4, 5))
    back = from_bytes(run.to_bytes())
    assert (back.blocks, back.rates, back.counts) == (blocks, run.rates, run.counts)
    assert torch.equal(back.layers[0].eigenvalues, layer.eigenvalues)
    assert torch.equal(back.layers[0].q_in, layer.q_in)
    if adam:
        assert torch.equal(back.whitenings[1][0].root, whitenings[1][0].root)
    else:
        assert back.whitenings is None
