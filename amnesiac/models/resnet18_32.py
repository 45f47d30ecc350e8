"""ResNet-18 for images of about 32x32."""

from functools import partial

from torch import nn

from amnesiac.models.residual import residual_network


def resnet18_32(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """ResNet-18 with GroupNorm(1, C), a 3x3 stem of stride 1 and no max-pool.

    Maps `[n, c, h, w]` to logits `[n, num_classes]`.
    """
    norm = partial(nn.GroupNorm, 1)
    stem = [nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False), norm(64), nn.ReLU()]
    return residual_network(stem, (64, 128, 256, 512), 2, num_classes, norm)
