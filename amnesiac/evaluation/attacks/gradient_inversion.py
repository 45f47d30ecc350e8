"""Gradient inversion: a sample's input, read from its row in the ledger, without any optimisation.

For a linear layer z = W a + b, a sample's gradient is the outer product of dL/dz and (a, 1): every row of it is the
input but for a factor, and the bias gradient *is* that factor (Phong et al., IEEE TIFS 2018, eprint.iacr.org/2017/715;
Geiping et al., NeurIPS 2020, arXiv 2003.14053). A stored delta is a weighted sum of such gradients, with the same input
in the first layer at each visit, so it gives the input away as well: a ledger is as sensitive as the data it was made
from (docs/security.md). That is why rows are encrypted and keys are destroyed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from amnesiac.errors import InputError


def input_of_row(delta: Mapping[str, Tensor], weight: str, bias: str | None = None) -> Tensor:
    """The input float64 `[d_in]` that one sample's delta (by parameter name) holds in a linear layer that reads inputs.

    With the layer's bias up to nothing (scale and sign are right), without it up to a factor: then it has length one
    and a positive sum. Raises InputError for a name that isn't there, another shape, or a delta of zeros.
    """
    matrix = _matrix(delta, weight, bias)
    if not bool(matrix.any()):
        raise InputError(f"the delta of {weight!r} is 0: the sample left nothing there to invert")
    direction: Tensor = torch.linalg.svd(matrix, full_matrices=False).Vh[0]
    if bias is None:
        return direction if float(direction.sum()) >= 0 else -direction
    if abs(float(direction[-1])) < 1e-9:
        return direction[:-1]
    return direction[:-1] / direction[-1]


def inputs_of_sum(delta: Mapping[str, Tensor], weight: str, count: int) -> Tensor:
    """An orthonormal basis float64 `[count, d_in]` of what a sum of `count` samples' deltas spans, strongest first."""
    matrix = _matrix(delta, weight, None)
    if not 0 < count <= min(matrix.shape):
        raise InputError(f"{weight!r} has shape {list(matrix.shape)}: at most {min(matrix.shape)} directions are in it")
    basis: Tensor = torch.linalg.svd(matrix, full_matrices=False).Vh[:count]
    return basis


def cosine(recovered: Tensor, truth: Tensor) -> float:
    """Cosine in [-1, 1] of a recovered input with the true one, both flattened."""
    return float(functional.cosine_similarity(recovered.double().flatten(), truth.double().flatten(), dim=0))


def _matrix(delta: Mapping[str, Tensor], weight: str, bias: str | None) -> Tensor:
    """The layer's delta float64 `[d_out, d_in]`, with the bias as a last column where it is named."""
    for name in filter(None, (weight, bias)):
        if name not in delta:
            raise InputError(f"the delta has no {name!r}: it has {sorted(delta)}")
    if delta[weight].ndim != 2:
        raise InputError(f"{weight!r} has shape {list(delta[weight].shape)}: name the weight of a linear layer")
    matrix = delta[weight].double()
    return matrix if bias is None else torch.cat([matrix, delta[bias].double()[:, None]], 1)
