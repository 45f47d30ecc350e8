"""Adam's preconditioner as a change of coordinates (method.md §6): in whitened coordinates its steps are plain
gradient steps.

With p the mean of P = 1 / (sqrt(vhat) + eps) over a segment, theta~ = p^(-1/2) theta and g~ = p^(1/2) g. P is
clipped from above at a quantile of each layer: coordinates that see almost no gradient have a huge P, forget and
retain contributions there are large and cancel, and no curvature damps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amnesiac.capture.blocks import Block
from amnesiac.curvature.matrices import to_matrix


@dataclass(frozen=True)
class Whitening:
    """p^(1/2) of one layer and segment.

    root:  in the shape of the layer's matrix (with the bias column), or flat for layers without one
    left, right:  root is about left[:, None] * right[None, :] (geometric means); None where there is no matrix
    """

    root: Tensor
    left: Tensor | None
    right: Tensor | None


def whiten(block: Block, preconditioner: Tensor, clip_quantile: float, eps: float) -> Whitening:
    """From a layer's mean preconditioner, its parameters flattened `[numel]`.

    The quantile is taken over coordinates that see gradients at all: where there is none (dark pixels, dead units),
    P is
    1 / eps, and a layer can have more of those than others.
    """
    alive = preconditioner[preconditioner < 0.5 / eps]
    among = alive if len(alive) else preconditioner
    limit = among.kthvalue(max(1, round(clip_quantile * len(among)))).values
    root = to_matrix(block, preconditioner.clamp_max(limit).sqrt())
    if block.matrix is None:
        return Whitening(root, None, None)
    logs = root.log()
    return Whitening(root, *((logs.mean(axis) - logs.mean() / 2).exp() for axis in (1, 0)))


def unit(block: Block) -> Whitening:
    """SGD: nothing to whiten."""
    if block.matrix is None:
        return Whitening(torch.ones(block.numel), None, None)
    return Whitening(torch.ones(block.matrix), torch.ones(block.matrix[0]), torch.ones(block.matrix[1]))


def split_by_block(blocks: Sequence[Block], vector: Tensor) -> list[Tensor]:
    """A flat vector over all parameters, cut into the layers' parts."""
    return list(torch.split(vector, [block.numel for block in blocks]))
