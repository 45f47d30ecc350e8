"""Invariant 2 of method.md §8: hook factors = per-sample gradients by torch.func = one-by-one backward."""

import copy

import pytest
import torch
from torch import nn

from amnesiac.capture.blocks import pack, plan_block, to_dense
from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.layers import by_vmap, rule_for

torch.set_default_dtype(torch.float32)


class Twice(nn.Module):
    """Calls one layer twice: its gradient is the sum over both calls."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


class Scale(nn.Module):
    """A layer that no rule covers."""

    def __init__(self, size):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2.0, size))

    def forward(self, x):
        return torch.tanh(x * self.scale)


IMAGE = (3, 8, 8)
CASES = {
    "linear": (nn.Linear(5, 4), (5,)),
    "linear, no bias": (nn.Linear(5, 4, bias=False), (5,)),
    "linear, positions": (nn.Linear(5, 4), (6, 5)),
    "linear, two kinds of positions": (nn.Linear(5, 4), (2, 3, 5)),
    "conv": (nn.Conv2d(3, 4, 3), IMAGE),
    "conv, stride": (nn.Conv2d(3, 4, 3, stride=2, padding=1), IMAGE),
    "conv, uneven": (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(2, 0)), IMAGE),
    "conv, dilation": (nn.Conv2d(3, 4, 3, dilation=2), IMAGE),
    "conv, same": (nn.Conv2d(3, 4, 3, padding="same"), IMAGE),
    "conv, reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv, groups": (nn.Conv2d(4, 8, 3, groups=2), (4, 6, 6)),
    "conv, depthwise, no bias": (nn.Conv2d(4, 4, 3, groups=4, bias=False), (4, 6, 6)),
    "group norm": (nn.GroupNorm(2, 4), (4, 5, 5)),
    "group norm, flat": (nn.GroupNorm(2, 4), (4,)),
    "layer norm": (nn.LayerNorm(5), (3, 5)),
    "layer norm, 2d": (nn.LayerNorm((3, 5)), (2, 3, 5)),
    "layer norm, no bias": (nn.LayerNorm(5, bias=False), (5,)),
    "transposed conv (fallback)": (nn.ConvTranspose2d(3, 4, 3), IMAGE),
    "conv1d (fallback)": (nn.Conv1d(3, 4, 3), (3, 9)),
    "prelu (fallback)": (nn.PReLU(3), IMAGE),
    "own layer (fallback)": (Scale(5), (5,)),
    "called twice": (Twice(), (4,)),
    "in-place activation": (nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)), (5,)),
    "in-place after conv": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.GroupNorm(2, 4)), IMAGE),
}


def one_by_one(model, x, direction):
    """The obvious twin: a backward pass for every sample."""
    gradients = []
    for i in range(len(x)):
        model.zero_grad()
        (model(x[i : i + 1]) * direction[i : i + 1]).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    return {name: torch.stack([g[name] for g in gradients]) for name in gradients[0]}


def captured(model, x, direction, rank=None):
    """Per-sample gradients by parameter, from the hooks, through the row form."""
    tap = GradientTap(model)
    tap.start()
    (model(x) * direction).sum().backward()
    found = {}
    for layer, gradient in tap.take().items():
        block = plan_block(layer, tap.layers[layer], gradient, rank)
        flat = to_dense(block, pack(block, gradient))
        sizes = [torch.Size(shape).numel() for shape in block.shapes]
        for name, shape, part in zip(block.parameters, block.shapes, flat.split(sizes, 1), strict=True):
            found[name] = part.reshape(len(x), *shape)
    tap.remove()
    return found


def randomised(model):
    """Affine layers start at ones and zeros, which would hide mistakes."""
    model = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


@pytest.mark.parametrize("case", CASES)
def test_shares_are_the_gradients_of_single_samples(case):
    layer, shape = CASES[case]
    model, x = randomised(layer), torch.randn(7, *shape, dtype=torch.float64)
    direction = torch.randn_like(model(x))
    expected, found = one_by_one(model, x, direction), captured(model, x, direction)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", [c for c in CASES if type(CASES[c][0]) in (nn.Linear, nn.Conv2d, nn.GroupNorm)])
def test_rules_agree_with_torch_func(case):
    layer, shape = CASES[case]
    layer, x = randomised(layer), torch.randn(4, *shape, dtype=torch.float64)
    b = torch.randn_like(layer(x))
    with torch.no_grad():
        block = plan_block("", layer, rule_for(layer)(layer, x, b), None)
        ours = to_dense(block, pack(block, rule_for(layer)(layer, x, b)))
        theirs = torch.cat([by_vmap(layer, x, b)[k].flatten(1) for k in block.parameters], 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding(padding):
    model = randomised(nn.Embedding(6, 3, padding_idx=padding))
    x = torch.tensor([[0, 1, 1], [2, 2, 5], [4, 0, 2]])
    direction = torch.randn(3, 3, 3, dtype=torch.float64)
    expected, found = one_by_one(model, x, direction), captured(model, x, direction)
    torch.testing.assert_close(found["weight"], expected["weight"])


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_shares_sum_to_the_batch_gradient(training):
    """With BatchNorm a share is no longer the gradient of a sample's own loss, but the shares still add up."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    model.train(training)
    x = torch.randn(6, *IMAGE, dtype=torch.float64)
    direction = torch.randn_like(model(x))
    found = captured(model, x, direction)
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name].sum(0), p.grad, rtol=1e-9, atol=1e-10)


def test_frozen_parameters_are_left_out():
    model = randomised(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    x, direction = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    found = captured(model, x, direction)
    assert set(found) == {"1.weight", "2.bias"}
    for name in found:
        torch.testing.assert_close(found[name].sum(0), model.get_parameter(name).grad)


def test_low_rank_is_exact_where_the_rank_suffices_and_best_where_not():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, 3).double()
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    direction = torch.randn(3, 16, 4, 4, dtype=torch.float64)
    exact = captured(layer, x, direction)["weight"].flatten(2)
    singular = torch.linalg.svdvals(torch.cat([exact, captured(layer, x, direction)["bias"].unsqueeze(2)], 2))
    for rank in (2, 4):
        rough = captured(layer, x, direction, rank)["weight"].flatten(2)
        best = singular[:, rank:].norm(dim=1)
        assert ((rough - exact).flatten(1).norm(dim=1) < 1.3 * best).all()
    one_position = captured(nn.Linear(30, 20).double(), torch.randn(3, 30, dtype=torch.float64), torch.randn(3, 20), 4)
    assert one_position["weight"].shape == (3, 20, 30)


def test_low_rank_of_tiny_gradients_keeps_its_relative_precision():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, 3)
    x, direction = torch.randn(3, 8, 3, 3), torch.randn(3, 16, 1, 1) * 1e-22
    exact, rough = captured(layer, x, direction)["weight"], captured(layer, x, direction, 1)["weight"]
    assert float(exact.abs().max()) > 0
    torch.testing.assert_close(rough / exact.abs().max(), exact / exact.abs().max(), rtol=1e-3, atol=1e-4)
