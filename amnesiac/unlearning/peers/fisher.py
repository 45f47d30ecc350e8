"""Importance of each parameter: the diagonal of the empirical Fisher matrix over some samples."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.capture.blocks import Block, matrix_to_parameters, plan_block
from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.layers import Factors, LayerGradient
from amnesiac.training.loop import TrainingData

_BATCH = 128


def diagonal_fisher(
    factory: Callable[[], nn.Module], weights: Mapping[str, Tensor], data: TrainingData, rows: Sequence[int]
) -> dict[str, Tensor]:
    """Mean over the samples `rows` of the squared gradient of the loss, by parameter name; on the CPU.

    One backward pass a mini-batch: a linear layer's squared gradient is the outer product of squares.
    """
    model = factory().eval()
    model.load_state_dict(dict(weights))
    tap, sums = GradientTap(model), {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    for part in torch.split(torch.tensor(list(rows)), _BATCH):
        tap.start()
        F.cross_entropy(model(data.inputs[part]), data.labels[part], reduction="sum").backward()  # type: ignore[no-untyped-call]
        for layer, gradient in tap.take().items():
            for name, value in _squares(plan_block(layer, tap.layers[layer], gradient, None), gradient).items():
                sums[name] += value
    tap.remove()
    return {name: value / max(1, len(rows)) for name, value in sums.items()}


def _squares(block: Block, gradient: LayerGradient) -> dict[str, Tensor]:
    """Sum over samples of squared gradients, by parameter name."""
    if not isinstance(gradient, Factors):
        return {name: gradient[name.rpartition(".")[2]].square().sum(0) for name in block.parameters}
    if gradient.left.shape[1] == 1:
        squared = gradient.left[:, 0].square().T @ gradient.right[:, 0].square()
    else:
        squared = gradient.dense().square().sum(0)
    flat = matrix_to_parameters(block, squared[None])[0]
    parts = torch.split(flat, [torch.Size(shape).numel() for shape in block.shapes])
    return {name: part.reshape(shape) for name, shape, part in zip(block.parameters, block.shapes, parts, strict=True)}
