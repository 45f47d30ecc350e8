"""The coordinates in which a layer's curvature is diagonal: a Kronecker eigenbasis, under Adam of the whitened layer.

A layer's weights are one matrix, the bias as its last column. With L = diag(l) Q_out and R = diag(r) Q_in a gradient G
becomes L^T G R, and a change X of the coordinates changes the weights by L X R^T (method.md eq. 3 and 4; l = r = 1
under SGD). Layers without a matrix form keep their own coordinates, scaled by `root`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Basis:
    """left `[d_out, d_out]` and right `[d_in, d_in]`, or root `[numel]` for a layer without a matrix form."""

    left: Tensor | None
    right: Tensor | None
    root: Tensor | None = None

    def into(self, gradients: Tensor) -> Tensor:
        """`[..., d_out, d_in]` to the eigenbasis."""
        if self.left is None or self.right is None:
            return gradients if self.root is None else self.root.to(gradients.dtype) * gradients
        return self.left.T.to(gradients.dtype) @ gradients @ self.right.to(gradients.dtype)

    def out_of(self, inside: Tensor) -> Tensor:
        """`[..., d_out, d_in]` in the eigenbasis to weights."""
        if self.left is None or self.right is None:
            return inside if self.root is None else self.root.to(inside.dtype) * inside
        return self.left.to(inside.dtype) @ inside @ self.right.T.to(inside.dtype)

    @property
    def largest(self) -> float:
        """How many times longer a vector can be after `out_of`, at most."""
        if self.left is None or self.right is None:
            return 1.0 if self.root is None else float(self.root.abs().max())
        return float(torch.linalg.matrix_norm(self.left, 2) * torch.linalg.matrix_norm(self.right, 2))


def eigenvectors(matrix: Tensor, largest: int) -> Tensor:
    """Eigenvectors of a symmetric matrix; of its diagonal blocks of at most `largest` rows where it is wider.

    Any orthogonal basis is right to use (EK-FAC measures its diagonal exactly); blocks only diagonalise less well.
    """
    parts = torch.tensor_split(torch.arange(len(matrix)), -(-len(matrix) // largest))
    vectors = torch.zeros_like(matrix)
    for rows in parts:
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        vectors[block, block] = _eigh(matrix[block, block])
    return vectors


def _eigh(matrix: Tensor) -> Tensor:
    """NumPy's in double precision where torch's doesn't converge: MKL gives up, in double too, on factors most of whose
    eigenvalues are zero (a 3x3 convolution of a 1x1 image sees mostly padding).
    """
    try:
        vectors: Tensor = torch.linalg.eigh(matrix)[1]
    except RuntimeError:  # torch.linalg.LinAlgError, which torch's type stubs lack
        vectors = torch.from_numpy(np.linalg.eigh(matrix.double().numpy())[1]).to(matrix.dtype)
    return vectors
