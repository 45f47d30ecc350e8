"""Patches by strided copies, and backward passes that stop at the layers' outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.layers import conv2d

KINDS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "stride": 2, "padding": 1},
    {"kernel_size": 3, "dilation": 2, "padding": "same"},
    {"kernel_size": (2, 3), "stride": (3, 2), "bias": False},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_patches_are_those_of_unfold(kind):
    layer, x = nn.Conv2d(4, 6, **kind), torch.randn(3, 4, 11, 13)
    out = layer(x)
    padding = layer._reversed_padding_repeated_twice
    expected = F.unfold(F.pad(x, padding), layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)
    right = conv2d(layer, x, torch.randn_like(out)).right
    assert torch.equal(right[:, :, : expected.shape[2]], expected)
    assert right.shape[2] == expected.shape[2] + (layer.bias is not None)
    assert layer.bias is None or bool((right[:, :, -1] == 1).all())


def test_a_backward_pass_to_the_taps_sees_what_a_whole_one_sees_and_leaves_gradients_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2 * 36, 3))
    tap, x, y = GradientTap(model), torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    tap.start()
    tap.backward(F.cross_entropy(model(x), y, reduction="sum"))
    found = tap.take()
    assert all(parameter.grad is None for parameter in model.parameters())
    tap.start()
    F.cross_entropy(model(x), y, reduction="sum").backward()
    whole = tap.take()
    for name in ("0", "3"):
        torch.testing.assert_close(found[name].dense(), whole[name].dense())
