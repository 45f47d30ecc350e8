"""How a deletion's contributions would have settled: equation (2) of method.md, segment by segment, elementwise in
the eigenbasis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from amnesiac.curvature.estimate import LayerCurvature
from amnesiac.curvature.whitening import Whitening


def settle(
    curvature: LayerCurvature,
    whitenings: Sequence[Whitening] | None,
    contributions: Tensor,
    rates: Sequence[float],
    retained: Tensor,
    kappa: float,
) -> Tensor:
    """What is added to a layer's weights when `contributions` are taken out of the run.

    contributions: `[segments, d_out, d_in]` (or `[segments, numel]`), sums of r_t g_{i,t} over the forget set
    whitenings:    of each segment under Adam, None under SGD (then the whole sweep stays in the eigenbasis)
    rates:         effective learning rate times steps of each segment, lr / (1 - momentum) * K
    retained:      `[classes]`, retained samples of each class / all samples: the curvature is that of the retained data

    delta <- decay_s delta + gain_s C_s  with  z = kappa rate lambda,  decay = exp(-z),  gain = (1 - exp(-z)) / z.
    """
    if whitenings is None:
        inside = torch.zeros_like(contributions[0])
        for segment, rate in enumerate(rates):
            own = into_basis(curvature, contributions[segment])
            inside = _advance(curvature, segment, inside, own, retained, kappa * rate)
        return out_of_basis(curvature, inside)
    delta = torch.zeros_like(contributions[0])
    for segment, (rate, whitening) in enumerate(zip(rates, whitenings, strict=True)):
        own = into_basis(curvature, whitening.root * contributions[segment])
        before = into_basis(curvature, delta / whitening.root)
        settled = _advance(curvature, segment, before, own, retained, kappa * rate)
        delta = whitening.root * out_of_basis(curvature, settled)
    return delta


def _advance(
    curvature: LayerCurvature, segment: int, before: Tensor, own: Tensor, retained: Tensor, rate: float
) -> Tensor:
    """One segment of (2) in the eigenbasis."""
    eigenvalues = torch.tensordot(retained.to(own.dtype), curvature.eigenvalues[segment].to(own.dtype), 1)
    z = (rate * eigenvalues).clamp_min(1e-12)
    advanced: Tensor = torch.exp(-z) * before - torch.expm1(-z) / z * own
    return advanced


def into_basis(curvature: LayerCurvature, matrix: Tensor) -> Tensor:
    """Q_out^T M Q_in."""
    if curvature.q_out is None or curvature.q_in is None:
        return matrix
    return curvature.q_out.T.to(matrix.dtype) @ matrix @ curvature.q_in.to(matrix.dtype)


def out_of_basis(curvature: LayerCurvature, matrix: Tensor) -> Tensor:
    """Q_out M Q_in^T."""
    if curvature.q_out is None or curvature.q_in is None:
        return matrix
    return curvature.q_out.to(matrix.dtype) @ matrix @ curvature.q_in.T.to(matrix.dtype)
