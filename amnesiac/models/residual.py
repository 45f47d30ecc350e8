"""Residual blocks with GroupNorm, from which the residual networks are built.

He, Zhang, Ren, Sun: Deep residual learning for image recognition (CVPR 2016), with GroupNorm (Wu, He 2018) in
place of BatchNorm: a sample's gradient is then its own, whereas BatchNorm mixes the samples of a mini-batch.
Activations aren't in place and aren't shared, so that every layer can carry hooks.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

Norm = Callable[[int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        """A 1x1 convolution is the shortcut where the shape changes, else the identity."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = norm(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, stride, norm)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[n, channels_in, h, w]` to `[n, channels_out, ceil(h / stride), ceil(w / stride)]`."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: torch.Tensor = self.relu2(y + self.shortcut(x))
        return out


def residual_network(
    stem: Sequence[nn.Module], channels: Sequence[int], blocks: int, num_classes: int, norm: Norm
) -> nn.Module:
    """Stem, one stage of `blocks` blocks for each entry of `channels`, average pool, linear layer.

    Every stage but the first halves height and width; `stem` must end with `channels[0]` channels.
    Convolutions start from Kaiming normal (fan out), as in torchvision.
    """
    stages = [
        _stage(channels[max(k - 1, 0)], width, blocks, 1 if k == 0 else 2, norm) for k, width in enumerate(channels)
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)]
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(*stem), stages=nn.Sequential(*stages), head=nn.Sequential(*head)
    )
    network = nn.Sequential(parts)
    network.apply(_initialise)
    return network


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int, norm: Norm) -> nn.Module:
    first = BasicBlock(channels_in, channels_out, stride, norm)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1, norm) for _ in range(blocks - 1)))


def _shortcut(channels_in: int, channels_out: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), norm(channels_out))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
