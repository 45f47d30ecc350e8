"""The base: what would be left of the weights if every sample were forgotten, base = theta_T + sum of all rows (a row
is what is *added* to the weights to take its sample back).

With the rows that are still there it gives the published weights again (method.md §8.4), so that they can be checked
after the forgotten rows are gone: theta' = base - sum of surviving rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from amnesiac.durable import write_bytes
from amnesiac.ledger.codecs import on_grid

BASE = "base.safetensors"


def write_base(
    path: Path, final: Mapping[str, Tensor], parameters: Sequence[tuple[str, tuple[int, ...]]],
    total: npt.NDArray[np.float64],
) -> None:  # fmt: skip
    """Store theta_T + `total`, the exact sum of all rows `[P]`; float64 by parameter name."""
    start, parts = 0, {}
    for name, _ in parameters:
        weights = final[name].detach().double().flatten().numpy()
        parts[name] = torch.from_numpy(weights + total[start : start + len(weights)]).reshape(final[name].shape)
        start += len(weights)
    write_bytes(path, save(parts))


def to_grid(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point weights rounded to multiples of 2^-40 (a change below 10^-12), so that adding rows is exact."""
    return {
        name: torch.from_numpy(on_grid(value.numpy())).to(value.dtype) if value.is_floating_point() else value
        for name, value in weights.items()
    }
