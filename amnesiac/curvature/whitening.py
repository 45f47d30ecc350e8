"""Adam's preconditioner as a change of coordinates (method.md §6): in whitened coordinates its steps are plain
gradient steps.

A segment's P is the *harmonic* mean of P_t = 1 / (sqrt(vhat_t) + eps): an arithmetic one is ruled by the steps in
which a coordinate had seen no gradient yet, where P_t is 1 / eps and nothing moves. P is then clipped from above at a
quantile of each layer: coordinates that see almost no gradient have a huge P, forget and retain contributions there
are large and cancel, and no curvature damps them. One shape for the whole run, rank 1 for a matrix (as in Adafactor,
Shazeer and Stern 2018), keeps outer products outer products; how P grows from segment to segment is a number a layer,
its pace.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.blocks import Block
from amnesiac.curvature.matrices import to_matrix


@dataclass(frozen=True)
class Whitening:
    """P of one layer and segment s is about pace[s] * (left left^T) * (right right^T), or pace[s] * root^2.

    left `[d_out]`, right `[d_in]`: of a matrix with the bias column;  root `[numel]`: of a layer without one
    pace: of each segment, about 1
    """

    left: Tensor | None
    right: Tensor | None
    root: Tensor | None
    pace: tuple[float, ...]


def unit(block: Block, segments: int) -> Whitening:
    """SGD: nothing to whiten."""
    pace = (1.0,) * segments
    if block.matrix is None:
        return Whitening(None, None, torch.ones(block.numel), pace)
    return Whitening(torch.ones(block.matrix[0]), torch.ones(block.matrix[1]), None, pace)


def whiten(block: Block, denominators: Tensor, clip_quantile: float, eps: float) -> Whitening:
    """From a layer's mean of 1 / P_t in each segment, `[segments, numel]`.

    The quantile is taken over coordinates that see gradients at all: where there is none (dark pixels, dead units),
    P is 1 / eps, and a layer can have more of those than others.
    """
    whole = denominators.mean(0).reciprocal()
    seen = whole < 0.5 / eps
    seen = seen if seen.any() else torch.ones_like(seen)
    shape = _clip(whole, seen, clip_quantile)
    segments = [_clip(own.reciprocal(), seen, clip_quantile) for own in denominators]
    pace = tuple(float((own[seen].log() - shape[seen].log()).mean().exp()) for own in segments)
    if block.matrix is None:
        return Whitening(None, None, shape.sqrt(), pace)
    logs = to_matrix(block, shape).log() / 2
    left, right = ((logs.mean(axis) - logs.mean() / 2).exp() for axis in (1, 0))
    return Whitening(left, right, None, pace)


def mean_denominators(preconditioners: npt.NDArray[np.float32], bounds: Sequence[int]) -> Tensor:
    """1 / P_t averaged over the steps of each segment, `[segments, P]`, from P_t `[steps, P]`."""
    parts = (preconditioners[a:b] for a, b in zip(bounds, bounds[1:], strict=False))
    return torch.stack([torch.from_numpy(np.reciprocal(part).mean(0)) for part in parts])


def _clip(values: Tensor, seen: Tensor, quantile: float) -> Tensor:
    among = values[seen]
    limit = among.kthvalue(max(1, round(quantile * len(among)))).values
    return values.clamp_max(limit)
