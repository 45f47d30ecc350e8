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
    later = torch.zeros_like(own.total[0])
    for segment in range(len(curvature.rates) - 1, -1, -1):
        rate = curvature.rates[segment] * own.pace[segment]
        z = factor * rate * own.retained(segment, forgotten) + curvature.decays[layer][segment]
        z = z.clamp_min(1e-12)
        weights.append(own.pace[segment] * (-torch.expm1(-z) / z) * torch.exp(-later))
        later = later + z
    return torch.stack(weights[::-1])


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
