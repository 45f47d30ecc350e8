"""How later training would have damped a contribution: equation (2) of method.md, elementwise in the eigenbasis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from amnesiac.curvature.stored import RunCurvature


@dataclass(frozen=True)
class Kappa:
    """Factor on the curvature, of the output layer and of all layers before it; theory says 1 (method.md §3)."""

    output: float
    hidden: float


def damping(curvature: RunCurvature, layer: int, kappa: Kappa, forgotten: Tensor | None = None) -> Tensor:
    """W_s of each segment, `[segments, d_out, d_in]` (or `[segments, numel]`), times the segment's pace.

    forgotten: `[classes]`, shares of the classes' samples that are left out of the curvature, None for none

    With z_s = kappa rate_s lambda_s + weight decay:  W_s = (1 - exp(-z_s)) / z_s * prod_{r > s} exp(-z_r).
    """
    own = curvature.layers[layer]
    factor = kappa.output if layer == curvature.output_layer else kappa.hidden
    weights: list[Tensor] = []
    later = torch.ones_like(own.total[0])
    for segment in range(len(curvature.rates) - 1, -1, -1):
        rate = curvature.rates[segment] * own.pace[segment]
        z = factor * rate * own.retained(segment, forgotten) + curvature.decays[layer][segment]
        kept = torch.exp(-z)
        weights.append(own.pace[segment] * _mean_decay(z, kept) * later)
        later = later * kept
    return torch.stack(weights[::-1])


def _mean_decay(z: Tensor, kept: Tensor) -> Tensor:
    """(1 - exp(-z)) / z with kept = exp(-z), by its series where the difference would lose digits: a tenth of the time
    of torch's expm1 on a CPU.
    """
    series = 1 - z / 2 * (1 - z / 3 * (1 - z / 4 * (1 - z / 5)))
    return torch.where(z < 0.05, series, (1 - kept) / z)


def settle(
    curvature: RunCurvature, layer: int, contributions: Tensor, kappa: Kappa, forgotten: Tensor | None = None
) -> Tensor:
    """What is added to a layer's weights when contributions are taken out of the run.

    contributions: `[segments, d_out, d_in]` (or `[segments, numel]`), sums over the forget set of r_t g_{i,t}
    """
    return settle_inside(curvature, layer, curvature.layers[layer].basis.into(contributions), kappa, forgotten)


def settle_inside(
    curvature: RunCurvature, layer: int, inside: Tensor, kappa: Kappa, forgotten: Tensor | None = None
) -> Tensor:
    """`settle` for contributions that are in the eigenbasis already."""
    weights = damping(curvature, layer, kappa, forgotten).to(inside.dtype)
    return curvature.layers[layer].basis.out_of((weights * inside).sum(0))
