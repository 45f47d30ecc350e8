"""ResNet-18 as in the 2024 paper: torchvision's architecture with GroupNorm(1, C)."""

from functools import partial

from torch import nn

from amnesiac.models.residual import residual_network


def resnet18(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """ResNet-18 with the 7x7 stem of stride 2 and the max-pool, made for large images, kept by the paper.

    Maps `[n, c, h, w]` to logits `[n, num_classes]`. Computes what torchvision's `resnet18` with
    `norm_layer=partial(GroupNorm, 1)` computes, with the parameters in the same order.
    """
    norm = partial(nn.GroupNorm, 1)
    stem = [
        nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False),
        norm(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    return residual_network(stem, (64, 128, 256, 512), 2, num_classes, norm)
