"""Low-rank settled deltas of wide layers without forming them.

A sample's settled delta in the eigenbasis is  M = sum over visits of W_s * (l r^T),  elementwise, so that

    M x = sum of l * (W_s (r * x))        M^T y = sum of r * (W_s^T (l * y))

and the products that a low-rank approximation takes are matrix products with W_s, of many samples at once. Forming M
costs as many operations, but waits for memory at each of them: a quarter of the speed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import orthonormal_rows, with_chance

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

    def truncated(self, rank: int, iterations: int | None = None) -> Factors:
        """Nearly the best outer products: left `[n, rank, d_out]`, right `[n, rank, d_in]` orthonormal.

        Subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) from the visits' own largest rows.
        iterations: one, and two for a single outer product, which has no other beside it to hold what it misses.
        """
        if iterations is None:
            iterations = 2 if rank == 1 else 1
        right = orthonormal_rows(with_chance(self._largest_rows(rank)))
        for _ in range(iterations):
            right = orthonormal_rows(self.back(self.forth(right)))
        return Factors(self.forth(right), right)

    def _largest_rows(self, rank: int) -> Tensor:
        """`[n, rank, d_in]`: of each visit's contribution the largest row, as large as the contribution, summed over
        all visits, over the later ones, and so on.
        """
        left, right = self.shares.left, self.shares.right
        found = torch.zeros(len(left), left.shape[1], right.shape[-1])
        for samples, visit, weights in self._runs():
            for k in range(left.shape[2]):
                own = left[samples, visit, k]
                rows = right[samples, visit, k] * weights[own.abs().argmax(1)]
                size = own.norm(dim=1) * right[samples, visit, k].norm(dim=1)
                found[samples, visit] += torch.nn.functional.normalize(rows, dim=1) * size[:, None]
        return torch.stack([found[:, found.shape[1] * k // rank :].sum(1) for k in range(rank)], 1)

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


def in_segments(sums: SettledSums) -> SettledSums:
    """The same deltas of samples whose right factors are those of their first visit (a first layer's inputs): visits
    of one segment share a weight too, so that their left factors add up.
    """
    visits = sums.keys.shape[1] - sums.by_class
    segments, places = np.unique(sums.keys[:, :visits], return_inverse=True)
    left, right = sums.shares.left, sums.shares.right
    index = torch.from_numpy(places.reshape(-1, visits))[:, :, None, None].expand(left.shape)
    joined = torch.zeros(len(left), len(segments), *left.shape[2:]).scatter_add_(1, index, left)
    own = np.broadcast_to(segments, (len(left), len(segments)))
    keys = np.concatenate([own, sums.keys[:, visits:]], 1)
    return replace(sums, shares=Factors(joined, right[:, :1].expand(-1, len(segments), -1, -1)), keys=keys)


def pays(numel: int, rank: int) -> bool:
    """Whether the low-rank form of a layer is found sooner without forming its deltas."""
    return rank <= LARGEST_RANK and numel >= SMALLEST_LAYER


def runs(keys: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where equal rows lie together: (start, stop)."""
    changes = (np.flatnonzero((keys[1:] != keys[:-1]).any(1)) + 1).tolist()
    return list(pairwise([0, *changes, len(keys)]))
