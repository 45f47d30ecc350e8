"""The coordinates in which a layer's curvature is diagonal: a Kronecker eigenbasis, under Adam of the whitened layer.

A layer's weights are one matrix, the bias as its last column. With L = diag(l) Q_out and R = diag(r) Q_in a gradient G
becomes L^T G R, and a change X of the coordinates changes the weights by L X R^T (method.md eq. 3 and 4; l = r = 1
under SGD). Layers without a matrix form keep their own coordinates, scaled by `root`.

Wide factors are cut into blocks, which also makes going in and out cheaper.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amnesiac.capture.layers import Factors

Parts = tuple[Tensor, ...] | None
_MANY = 0.9


@dataclass(frozen=True)
class Basis:
    """left `[d_out, d_out]` and right `[d_in, d_in]`, or root `[numel]` for a layer without a matrix form.

    left_parts, right_parts: indices of the coordinates that each block mixes; a coordinate in none of them is only
    scaled. None where all are mixed, or where that isn't known: the products are the same, only slower.
    """

    left: Tensor | None
    right: Tensor | None
    root: Tensor | None = None
    left_parts: Parts = None
    right_parts: Parts = None

    def into(self, gradients: Tensor) -> Tensor:
        """`[..., d_out, d_in]` to the eigenbasis."""
        if self.left is None or self.right is None:
            return gradients if self.root is None else self.root.to(gradients.dtype) * gradients
        turned = _times_left(self.left.T.to(gradients.dtype), gradients, self.left_parts)
        return _times_right(turned, self.right.to(gradients.dtype), self.right_parts)

    def out_of(self, inside: Tensor) -> Tensor:
        """`[..., d_out, d_in]` in the eigenbasis to weights."""
        if self.left is None or self.right is None:
            return inside if self.root is None else self.root.to(inside.dtype) * inside
        turned = _times_left(self.left.to(inside.dtype), inside, self.left_parts)
        return _times_right(turned, self.right.T.to(inside.dtype), self.right_parts)

    def factors_into(self, factors: Factors) -> Factors:
        """Outer products, of layers with a matrix form, to the eigenbasis."""
        assert self.left is not None and self.right is not None
        left = _times_right(factors.left, self.left, self.left_parts)
        return Factors(left, _times_right(factors.right, self.right, self.right_parts))

    def factors_out_of(self, factors: Factors) -> Factors:
        """Outer products in the eigenbasis to weights."""
        assert self.left is not None and self.right is not None
        left = _times_right(factors.left, self.left.T, self.left_parts)
        return Factors(left, _times_right(factors.right, self.right.T, self.right_parts))

    @property
    def work(self) -> int:
        """Multiplications for `factors_into` of one outer product."""
        sides = ((self.left, self.left_parts), (self.right, self.right_parts))
        known = ((side, parts) for side, parts in sides if side is not None)
        return sum(side.numel() if parts is None else sum(len(part) ** 2 for part in parts) for side, parts in known)

    @property
    def largest(self) -> float:
        """How many times longer a vector can be after `out_of`, at most."""
        if self.left is None or self.right is None:
            return 1.0 if self.root is None else float(self.root.abs().max())
        return float(torch.linalg.matrix_norm(self.left, 2) * torch.linalg.matrix_norm(self.right, 2))


def blocks_of(matrix: Tensor, largest: int) -> Parts:
    """Which coordinates of a symmetric matrix are diagonalised together: None for all of them.

    Those that saw nothing at all (an image's margin; the taps of a 3x3 convolution that only ever meet padding) stay as
    they are where they are many or the matrix is wider than `largest`; the others are cut into blocks of at most
    `largest`.
    """
    seen = torch.nonzero(matrix.diagonal()).flatten()
    if len(matrix) <= largest and len(seen) > _MANY * len(matrix):
        return None
    return torch.tensor_split(seen, max(1, -(-len(seen) // largest)))


def eigenvectors(matrix: Tensor, parts: Parts) -> Tensor:
    """Eigenvectors of a symmetric matrix, or of its blocks `parts` (`blocks_of`).

    Any orthogonal basis is right to use (EK-FAC measures its diagonal exactly); blocks only diagonalise less well.
    """
    if parts is None:
        return _eigh(matrix).contiguous()  # as blocks are: products round by how a matrix lies in memory
    vectors = torch.eye(len(matrix), dtype=matrix.dtype)
    for part in parts:
        vectors[part[:, None], part] = _eigh(matrix[part[:, None], part])
    return vectors


def _times_right(rows: Tensor, matrix: Tensor, parts: Parts) -> Tensor:
    """`[..., d] @ [d, d]`, of a matrix that mixes only what is together in `parts`."""
    if parts is None:
        return rows @ matrix
    out = rows * matrix.diagonal()
    for part in parts:
        out[..., part] = rows[..., part] @ matrix[part[:, None], part]
    return out


def _times_left(matrix: Tensor, columns: Tensor, parts: Parts) -> Tensor:
    """`[d, d] @ [..., d, n]`, likewise."""
    if parts is None:
        return matrix @ columns
    return _times_right(columns.transpose(-1, -2), matrix.T, parts).transpose(-1, -2)


def _eigh(matrix: Tensor) -> Tensor:
    """NumPy's in double precision where torch's doesn't converge: MKL gives up, in double too, on factors most of whose
    eigenvalues are zero (a 3x3 convolution of a 1x1 image sees mostly padding).
    """
    try:
        vectors: Tensor = torch.linalg.eigh(matrix)[1]
    except RuntimeError:  # torch.linalg.LinAlgError, which torch's type stubs lack
        vectors = torch.from_numpy(np.linalg.eigh(matrix.double().numpy())[1]).to(matrix.dtype)
    return vectors
