"""The weights of equation (2) as a few outer products, for layers too wide to settle each sample's dense delta.

W_s is a smooth function of the eigenvalues, which are nearly an outer product themselves, so that numerically its rank
is low (ResNet-18: 4 to 13 for one per cent). With W = sum_q a_q b_q^T a weighed outer product stays a few of them:

    W * (l r^T) = sum_q (a_q * l) (b_q * r)^T

What is bounded is not the error of W but that of what is settled with it: contributions are as large as the root of
the eigenvalues, so W is approximated in rows and columns that are scaled by their root means.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amnesiac.capture.layers import Factors

TOLERANCE = 0.01
_LARGEST_RANK = 32
_EXTRA = 8
_ITERATIONS = 2
_FLOOR = 0.01


@dataclass(frozen=True)
class ThinWeights:
    """W_s of one layer as outer products.

    factors: left `[segments, rank, d_out]` and right `[segments, rank, d_in]`, zero from each segment's rank on
    ranks:   of each segment
    """

    factors: Factors
    ranks: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The largest rank of a segment."""
        return max(self.ranks)

    def of(self, segment: int) -> Factors:
        """Its outer products, left `[rank, d_out]` and right `[rank, d_in]`."""
        rank = self.ranks[segment]
        return Factors(self.factors.left[segment, :rank], self.factors.right[segment, :rank])

    def columns(self, chosen: Tensor) -> "ThinWeights":
        """The same for some columns of W."""
        right = self.factors.right
        if len(chosen) == right.shape[2]:
            return self
        return replace(self, factors=Factors(self.factors.left, right[..., chosen]))


def thin(weights: Tensor, eigenvalues: Tensor) -> ThinWeights | None:
    """Outer products that add up to each segment's W; None where 32 aren't enough for one of them.

    weights, eigenvalues: `[segments, d_out, d_in]`

    A contribution whose mean squares are the product of the eigenvalues' row and column means (plus a hundredth of
    their mean, so that no direction is without any) is settled with a relative error of at most `TOLERANCE`.
    """
    mean = eigenvalues.mean(0).float()
    rows, columns = _scale(mean.mean(1)), _scale(mean.mean(0))
    found = []
    for own in weights:
        part = _truncated(own * rows[:, None] * columns)
        if part is None:
            return None
        found.append(Factors(part.left / rows, part.right / columns))
    sides = [[part.left for part in found], [part.right for part in found]]
    left, right = (torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in sides)
    return ThinWeights(Factors(left, right), tuple(part.left.shape[0] for part in found))


def _scale(means: Tensor) -> Tensor:
    """Roots of means, none of them zero; of no size where all are."""
    average = float(means.mean())
    return torch.ones_like(means) if average <= 0.0 else (means / average + _FLOOR).sqrt()


def _truncated(matrix: Tensor) -> Factors | None:
    """As few outer products as the tolerance allows, by a randomised singular value decomposition.

    Subspace iteration from a fixed start (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1).
    """
    size = min(_LARGEST_RANK + _EXTRA, *matrix.shape)
    start = torch.randn(matrix.shape[1], size, generator=torch.Generator().manual_seed(0)).to(matrix)
    basis = torch.linalg.qr(matrix @ start)[0]
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ (matrix.T @ basis))[0]
    inside = basis.T @ matrix
    values, vectors = torch.linalg.eigh((inside @ inside.T).double())
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1).to(matrix.dtype)
    rest = float(matrix.square().sum(dtype=torch.float64)) - values.cumsum(0)
    enough = torch.nonzero(rest <= TOLERANCE**2 * float(matrix.square().sum(dtype=torch.float64)))
    if not len(enough) or int(enough[0]) >= _LARGEST_RANK:
        return None
    kept = vectors[:, : int(enough[0]) + 1]
    return Factors((basis @ kept).T, kept.T @ inside)
