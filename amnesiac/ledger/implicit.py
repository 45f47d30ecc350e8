"""Low-rank settled deltas of wide layers without forming them.

A sample's settled delta in the eigenbasis is  M = sum over visits of W_s * (l r^T),  elementwise, so that

    M x = sum of l * (W_s (r * x))        M^T y = sum of r * (W_s^T (l * y))

and the products that a low-rank approximation takes are matrix products with W_s, of many samples at once. Forming M
costs as many operations, but waits for memory at each of them: a quarter of the speed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import orthonormal

LARGEST_RANK = 4
SMALLEST_LAYER = 1 << 14
Run = tuple[slice, int, Tensor]


@dataclass(frozen=True)
class SettledSums:
    """Settled deltas of n samples as operators.

    shares:  visits in the eigenbasis, left `[n, visits, k, d_out]`, right `[n, visits, k, d_in]`
    keys:    segment of each visit `[n, visits]`, by class with the class as a last column
    weights: W of all segments for a left-out class, or None
    """

    shares: Factors
    keys: npt.NDArray[np.int64]
    by_class: bool
    weights: Callable[[int | None], Tensor]

    def truncated(self, rank: int, iterations: int = 2) -> Factors:
        """What `capture.lowrank.truncate` gives of the formed matrices: left `[n, rank, d_out]`, right likewise."""
        n, width = len(self.keys), self.shares.right.shape[-1]
        start = torch.randn(width, rank, generator=torch.Generator().manual_seed(0))
        right = start.to(self.shares.right).T.contiguous().expand(n, -1, -1)
        for _ in range(iterations):
            right = orthonormal(self.back(self.forth(right)).transpose(1, 2)).transpose(1, 2).contiguous()
        return Factors(self.forth(right), right)

    def forth(self, rows: Tensor) -> Tensor:
        """`[n, rank, d_in]` to `[n, rank, d_out]`, M x of each sample and row."""
        return self._applied(rows, self.shares.right, self.shares.left, lambda weights: weights.T)

    def back(self, rows: Tensor) -> Tensor:
        """`[n, rank, d_out]` to `[n, rank, d_in]`, M^T y of each sample and row."""
        return self._applied(rows, self.shares.left, self.shares.right, lambda weights: weights)

    def _applied(self, rows: Tensor, before: Tensor, after: Tensor, oriented: Callable[[Tensor], Tensor]) -> Tensor:
        out = rows.new_zeros(*rows.shape[:2], after.shape[-1])
        for samples, visit, weights in self._runs():
            for k in range(before.shape[2]):
                scaled = (rows[samples] * before[samples, visit, k, None]).flatten(0, 1)  # for one product
                product = (scaled @ oriented(weights)).reshape(-1, rows.shape[1], out.shape[2])
                out[samples].addcmul_(product, after[samples, visit, k, None])
        return out

    def _runs(self) -> Iterator[Run]:
        """Neighbouring samples, a visit, and the weights that they share in it."""
        visits = self.keys.shape[1] - self.by_class
        for visit in range(visits):
            columns = self.keys[:, [visit, visits] if self.by_class else [visit]]
            for start, stop in runs(columns):
                label = int(columns[start, 1]) if self.by_class else None
                yield slice(start, stop), visit, self.weights(label)[int(columns[start, 0])]


def pays(numel: int, rank: int) -> bool:
    """Whether the low-rank form of a layer is found sooner without forming its deltas."""
    return rank <= LARGEST_RANK and numel >= SMALLEST_LAYER


def runs(keys: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where equal rows lie together: (start, stop)."""
    changes = (np.flatnonzero((keys[1:] != keys[:-1]).any(1)) + 1).tolist()
    return list(pairwise([0, *changes, len(keys)]))
