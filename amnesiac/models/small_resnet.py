"""A small residual network that trains on two CPU cores."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from amnesiac.models.residual import residual_network


def small_resnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    groups: int = 8,
) -> nn.Module:
    """The CIFAR form of a residual network (3x3 stem, three stages) with GroupNorm of `groups` groups.

    Maps `[n, c, h, w]` to logits `[n, num_classes]`; 77,754 parameters on 1x28x28 with 10 classes, 174,970
    with `blocks=2`. Every entry of `channels` must be a multiple of `groups`.
    """
    norm = partial(nn.GroupNorm, groups)
    stem = [nn.Conv2d(input_shape[0], channels[0], 3, padding=1, bias=False), norm(channels[0]), nn.ReLU()]
    return residual_network(stem, channels, blocks, num_classes, norm)
