"""A layer's parameters as one matrix, the bias as its last column, and back."""

import torch
from torch import Tensor

from amnesiac.capture.blocks import Block, matrix_to_parameters


def to_matrix(block: Block, flat: Tensor) -> Tensor:
    """`[numel]` (parameters one after another) to `[d_out, d_in (+ 1)]`; unchanged for layers without a matrix."""
    return to_matrices(block, flat[None])[0]


def to_matrices(block: Block, flat: Tensor) -> Tensor:
    """`to_matrix` of many: `[n, numel]` to `[n, d_out, d_in (+ 1)]`."""
    if block.matrix is None:
        return flat
    d_out, d_in = block.matrix
    if len(block.parameters) == 1:
        return flat.reshape(-1, d_out, d_in)
    cut = d_out * (d_in - 1)
    return torch.cat([flat[:, :cut].reshape(-1, d_out, d_in - 1), flat[:, cut:].reshape(-1, d_out, 1)], 2)


def to_flat(block: Block, matrix: Tensor) -> Tensor:
    """The inverse of `to_matrix`."""
    return matrix if block.matrix is None else matrix_to_parameters(block, matrix.unsqueeze(0)).squeeze(0)
