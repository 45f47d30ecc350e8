"""Max pooling that is quick on a CPU where no gradient is wanted."""

import torch
from torch import Tensor, nn


class MaxPool2(nn.MaxPool2d):
    """`nn.MaxPool2d(2)` with the same results, bit for bit.

    Without gradients four strided maxima do: a tenth of the time of torch's CPU kernel, which looks for the indices
    that the backward pass needs, and which took two thirds of a small network's prediction.
    """

    def __init__(self) -> None:
        """Windows of 2x2, side by side."""
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, c, h, w]` to `[n, c, h // 2, w // 2]`."""
        if torch.is_grad_enabled() and x.requires_grad:
            pooled: Tensor = super().forward(x)
            return pooled
        height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        taller = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(taller[..., 0::2], taller[..., 1::2])
