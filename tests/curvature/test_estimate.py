"""Measured curvature against slow twins."""

from importlib import import_module

import pytest
import torch
from torch import nn

from amnesiac.capture.blocks import Block, plan_block
from amnesiac.capture.layers import rule_for
from amnesiac.curvature import Basis, Probe, RunCurvature, estimate, from_bytes
from amnesiac.curvature.estimate import _gradients, add_squares
from amnesiac.curvature.whitening import unit, whiten

estimate_module = import_module("amnesiac.curvature.estimate")
LAYERS = {
    "linear": (nn.Linear(5, 4), (5,)),
    "many positions: dense first": (nn.Conv2d(2, 3, 2), (2, 4, 4)),
    "few positions: factors first": (nn.Conv2d(2, 3, 2), (2, 2, 3)),
    "norm": (nn.GroupNorm(1, 3), (3, 4)),
}


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_eigenvalues_are_sums_of_squares_in_the_basis(kind, columns):
    """Over all samples, and over those that a class has to do with; a table too large for classes has one column."""
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    x, touched = torch.randn(9, *shape), torch.randint(0, 2, (9, 4)).float()
    touched[:, 0] = 1.0
    with torch.no_grad():
        gradient = rule_for(layer)(layer, x, torch.randn_like(layer(x)))
    block = plan_block("", layer, gradient, None)
    if block.matrix:
        basis = Basis(*(torch.randn(k, k) for k in block.matrix))
        inside = [basis.left.T @ own @ basis.right for own in gradient.dense()]
    else:
        basis = Basis(None, None, torch.rand(block.numel))
        inside = [own * basis.root for own in torch.cat([gradient[k].flatten(1) for k in ("weight", "bias")], 1)]
    expected = torch.full((columns, *(block.matrix or (block.numel,))), 0.5)
    for own, marks in zip(inside, touched, strict=True):
        for column in range(columns):
            expected[column] += marks[column] * own**2
    table = torch.full_like(expected, 0.5)
    add_squares(table, gradient, block, basis, touched)
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_wide_layers_are_measured_a_few_samples_at_a_time(kind, monkeypatch):
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    x, touched = torch.randn(9, *shape), torch.randint(0, 2, (9, 4)).float()
    with torch.no_grad():
        gradient = rule_for(layer)(layer, x, torch.randn_like(layer(x)))
    block = plan_block("", layer, gradient, None)
    sides = [torch.randn(k, k) for k in block.matrix] if block.matrix else (None, None)
    basis = Basis(*sides, None if block.matrix else torch.rand(block.numel))
    whole, parts = (torch.zeros(4, *(block.matrix or (block.numel,))) for _ in range(2))
    add_squares(whole, gradient, block, basis, touched)
    monkeypatch.setattr(estimate_module, "_LARGEST_BATCH", 1)
    monkeypatch.setattr(estimate_module, "_PART", 4 * block.numel + 1)
    add_squares(parts, gradient, block, basis, touched)
    torch.testing.assert_close(parts, whole)


def probe(samples=40, snapshots=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    inputs, labels = torch.randn(40, 1, 2, 3), torch.arange(40) % 3
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    return Probe(lambda: model, [weights] * snapshots, inputs, labels, 3, samples, 2048, 0), model


def blocks_of(model):
    x = torch.randn(2, 6)
    with torch.no_grad():
        return (plan_block("1", model[1], rule_for(model[1])(model[1], x, torch.randn(2, 3)), None),)


def test_true_fisher_of_a_linear_classifier():
    """Its trace is known: sum |x, 1|^2 |e_y - p|^2 over labels y ~ p. Labels are drawn, so over many draws.

    A class has to do with all draws of its own samples, and with the draws of it for the others'.
    """
    sample, model = probe(snapshots=100)
    blocks = blocks_of(model)
    (layer,) = estimate(sample, blocks, [unit(blocks[0], 100)])
    p = model(sample.inputs).softmax(1).detach()
    size = torch.cat([sample.inputs.flatten(1), torch.ones(40, 1)], 1).square().sum(1)
    expected, by_class = torch.tensor(0.0), torch.zeros(3)
    for k in range(40):
        for y in range(3):
            part = p[k, y] * size[k] * (torch.eye(3)[y] - p[k]).square().sum() / 40
            expected += part
            for c in range(3):
                by_class[c] += part if c in (y, int(sample.labels[k])) else 0.0
    torch.testing.assert_close(layer.total.sum((1, 2)).mean(), expected, rtol=0.05, atol=0.0)
    torch.testing.assert_close(layer.by_class.float().sum((2, 3)).mean(0), by_class, rtol=0.08, atol=0.0)
    torch.testing.assert_close(layer.basis.right.T @ layer.basis.right, torch.eye(7), rtol=0.0, atol=1e-5)
    assert layer.pace == (1.0,) * 100


def test_marks_name_a_samples_own_class_and_the_drawn_one():
    sample, model = probe()
    found = [touched for _, touched in _gradients(sample, 0)]
    marks = torch.cat(found)
    assert torch.equal(marks[:, 0], torch.ones(40))
    assert torch.equal(marks[torch.arange(40), 1 + sample.labels], torch.ones(40))
    others = marks[:, 1:].sum(1) - 1
    assert set(others.tolist()) == {0.0, 1.0}
    expected = 1 - model(sample.inputs).softmax(1).detach()[torch.arange(40), sample.labels].mean()
    assert abs(float(others.mean()) - float(expected)) < 0.2


@pytest.mark.parametrize("whitened", [False, True])
def test_the_basis_diagonalises_the_pooled_factor(whitened):
    """Under Adam that of whitened inputs; a wide factor is cut into blocks."""
    sample, model = probe()
    blocks = blocks_of(model)
    whitening = whiten(blocks[0], torch.rand(1, 21) + 0.5, 1.0, 1e-8) if whitened else unit(blocks[0], 1)
    (layer,) = estimate(sample, blocks, [whitening])
    x = torch.cat([sample.inputs.flatten(1), torch.ones(40, 1)], 1)
    inside = layer.basis.right.T @ x.T @ x @ layer.basis.right
    off = inside - inside.diag().diag()
    assert float(off.abs().max()) < 1e-4 * float(inside.abs().max())
    identity = (layer.basis.right / whitening.right[:, None]).T @ (layer.basis.right / whitening.right[:, None])
    torch.testing.assert_close(identity, torch.eye(7), rtol=0.0, atol=1e-5)


def test_estimates_are_repeatable_and_sub_samples_are_fair():
    sample, model = probe(samples=10)
    blocks = blocks_of(model)
    first, second = (estimate(sample, blocks, [unit(blocks[0], 1)])[0] for _ in range(2))
    assert torch.equal(first.total, second.total)
    assert torch.equal(first.basis.right, second.basis.right)
    assert len(set(sample.rows(0).tolist())) == 10
    assert sample.rows(0).tolist() != sample.rows(1).tolist()


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_stored_comes_back(whole, layer_of, curvature_of):
    run = curvature_of([layer_of(whitened=True), layer_of(seed=5)], (0.5, 0.25, 1.0), ((0.1,) * 3, (0.2,) * 3))
    by_class = [layer.by_class.bfloat16() if whole else None for layer in run.layers]
    layers = tuple(
        type(x)(x.basis, x.total.bfloat16().float(), c, x.pace) for x, c in zip(run.layers, by_class, strict=True)
    )
    run = RunCurvature(run.blocks, layers, run.bounds, run.rates, run.decays, run.counts)
    back = from_bytes(run.to_bytes())
    for name in ("blocks", "bounds", "rates", "decays", "counts", "output_layer"):
        assert getattr(back, name) == getattr(run, name), name
    for ours, theirs in zip(back.layers, layers, strict=True):
        assert torch.equal(ours.total, theirs.total)
        assert torch.equal(ours.basis.left, theirs.basis.left)
        assert torch.equal(ours.basis.right, theirs.basis.right)
        assert (ours.basis.root, ours.pace) == (None, theirs.pace)
        assert torch.equal(ours.by_class, theirs.by_class) if whole else ours.by_class is None


def test_a_table_by_class_that_would_be_too_large_is_left_out(monkeypatch):
    block = Block("l", ("w",), ((3, 4),), (3, 4), None)
    probe = Probe(lambda: None, [{}, {}], torch.zeros(1), torch.zeros(1), 5, 1, 2048, 0)
    monkeypatch.setattr(estimate_module, "_LARGEST_TABLE", 12 * 5 * 2)
    assert estimate_module._empty_table(block, probe).shape == (6, 3, 4)
    monkeypatch.setattr(estimate_module, "_LARGEST_TABLE", 12 * 5 * 2 - 1)
    assert estimate_module._empty_table(block, probe).shape == (1, 3, 4)
