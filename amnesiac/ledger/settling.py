"""From a spool's visits to settled rows: each visit's share in the eigenbasis, weighed by what came after (eq. 2 and 3
of method.md), summed over visits, recompressed.

In small models a sample's settled delta of a small layer is formed whole, that of a larger one is truncated by what it
does to vectors (implicit.py). In wide models it stays a sum of outer products until it has the few that its row keeps
(thinly.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.blocks import Block, matrix_to_parameters, unpack_factors
from amnesiac.capture.layers import Factors
from amnesiac.capture.lowrank import compress, truncate
from amnesiac.capture.spool import SpoolReader
from amnesiac.curvature import Choice, RunCurvature, damping
from amnesiac.curvature.basis import Basis
from amnesiac.curvature.matrices import to_matrices
from amnesiac.curvature.thin import ThinWeights, thin
from amnesiac.ledger.implicit import SettledSums, in_segments, pays, runs
from amnesiac.ledger.thinly import CACHE, settle_thinly
from amnesiac.ledger.visits import WIDE, StepWeights, VisitTable, segment_of, weighted_visit

Part = Factors | Tensor
_WEIGHTS_KEPT = 1 << 30
_SMALL = 1 << 16  # bytes of a layer's weights that are kept for every class (of norms, beside a wide model's matrices)
_UNKNOWN = -1  # a layer too wide for eigenvalues by class: the same weights for all classes


@dataclass(frozen=True)
class Settling:
    """What rows are settled with.

    few:   where a forget set takes a small part of each class: rows see the curvature of all samples
    whole: where it takes a class: a sample's row sees the curvature without its own class
    path:  ||theta_T - theta_0||, trained parameters
    """

    curvature: RunCurvature
    few: Choice
    whole: Choice
    path: float

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"settling": {"few": asdict(self.few), "whole": asdict(self.whole), "path": self.path}}


class Weights:
    """W of eq. (2) by layer and left-out class, computed when asked for, the small and the last ones kept."""

    def __init__(self, settling: Settling) -> None:
        self.settling = settling
        curvature = settling.curvature
        segments = 4 * (len(curvature.bounds) - 1)
        self._small = [segments * block.numel <= _SMALL for block in curvature.blocks]
        layer_bytes = segments * max(block.numel for block in curvature.blocks)
        self._kept = lru_cache(max(1, _WEIGHTS_KEPT // layer_bytes))(self._of)
        self._all = cache(self._of)
        self._thin = cache(self._thin_of)

    def of(self, layer: int, left_out: int | None) -> Tensor:
        """`[segments, d_out, d_in]` (or `[segments, numel]`); left_out: the samples' class, None for no class."""
        kept = self._all if self._small[layer] else self._kept
        return kept(layer, self._known(layer, left_out))

    def thin(self, layer: int, left_out: int | None) -> ThinWeights | None:
        """The same as a few outer products a segment, or None where few aren't enough."""
        return self._thin(layer, self._known(layer, left_out))

    def _known(self, layer: int, left_out: int | None) -> int | None:
        known = self.settling.curvature.layers[layer].by_class is not None
        return left_out if left_out is None or known else _UNKNOWN

    def _thin_of(self, layer: int, left_out: int | None) -> ThinWeights | None:
        return thin(self._of(layer, left_out), self.settling.curvature.layers[layer].total)

    def _of(self, layer: int, left_out: int | None) -> Tensor:
        if left_out is None:
            return damping(self.settling.curvature, layer, self.settling.few.kappa)
        if left_out == _UNKNOWN:
            return damping(self.settling.curvature, layer, self.settling.whole.kappa)
        forgotten = torch.zeros(len(self.settling.curvature.counts))
        forgotten[left_out] = 1.0
        return damping(self.settling.curvature, layer, self.settling.whole.kappa, forgotten)


@dataclass(frozen=True)
class Finish:
    """What is kept of settled deltas: `block.rank` outer products in the eigenbasis, or whole weights where that is
    None; whole and in the eigenbasis where there are no blocks.
    """

    blocks: tuple[Block, ...] | None
    bases: tuple[Basis, ...]

    def __call__(self, layer: int, rows: Part) -> Part:
        """rows: in the eigenbasis, `[n, d_out, d_in]` (or `[n, numel]`), or outer products that add up to them."""
        if self.blocks is None:
            return rows.dense() if isinstance(rows, Factors) else rows
        return finished(self.blocks[layer], rows, self.bases[layer])

    def rank(self, layer: int) -> int | None:
        """The number of outer products that are kept of a layer; None: it is kept whole."""
        return None if self.blocks is None else self.blocks[layer].rank


def settled_rows(
    spool: SpoolReader, table: VisitTable, steps: StepWeights, weights: Weights, curvature: RunCurvature,
    left_out: Sequence[npt.NDArray[np.int64] | None], finish: Sequence[Finish], wide: int = WIDE,
) -> list[list[Part]]:  # fmt: skip
    """Settled deltas of the table's samples, for each wanted form a list of blocks as its `finish` made them.

    left_out: of each form the samples' own classes, to be left out of the curvature, `[n]`; None for the curvature of
              all samples. Quickest where samples of a class lie together.
    wide:     models with more parameters are settled without forming a whole delta of a layer
    """
    visits = [weighted_visit(spool, table, steps, slice(None), v) for v in range(table.visits)]
    segments = segment_of(table.steps, curvature.bounds)
    forms: list[list[Part]] = [[] for _ in left_out]
    thinly = spool.layout.numel > wide
    for k, block in enumerate(spool.layout.blocks):
        shares = _into_basis(block, torch.stack([visit[k] for visit in visits], 1), curvature.layers[k].basis)
        for form, classes, kept in zip(forms, left_out, finish, strict=True):
            keys = segments if classes is None else np.concatenate([segments, classes[:, None]], 1)
            layer = _Layer(block, partial(weights.of, k), partial(kept, k), classes is not None, kept.rank(k))
            few = partial(weights.thin, k) if thinly and layer.rank is not None else None
            found = None
            if few and isinstance(shares, Factors):
                found = settle_thinly(few, layer.finish, layer.by_class, shares, keys)
            form.append(_settle(layer, shares, keys) if found is None else found)
    return forms


@dataclass(frozen=True)
class _Layer:
    """weights: W of all segments for a left-out class, or None;  finish: what is kept of settled deltas."""

    block: Block
    weights: Callable[[int | None], Tensor]
    finish: Callable[[Part], Part]
    by_class: bool
    rank: int | None


def _into_basis(block: Block, visits: Tensor, basis: Basis) -> Factors | Tensor:
    """Visits `[n, visits, size]` of a block: factors `[n, visits, rank, d]`, or whole gradients."""
    n, count = visits.shape[:2]
    if block.rank is None:
        whole = visits.flatten(0, 1)
        whole = to_matrices(block, whole)
        return basis.into(whole).reshape(n, count, *whole.shape[1:])
    factors = unpack_factors(block, visits.flatten(0, 1))
    left, right = (side.reshape(n, count, *side.shape[1:]) for side in (factors.left, factors.right))
    if count > 1 and torch.equal(right[:, 1:], right[:, :1].expand_as(right[:, 1:])):
        inside = basis.factors_into(Factors(left, right[:, :1]))  # a first layer's inputs
        return Factors(inside.left, inside.right.expand_as(right))
    return basis.factors_into(Factors(left, right))


def _settle(layer: _Layer, shares: Part, keys: npt.NDArray[np.int64]) -> Part:
    """Without forming the sums, or a few samples at a time, so that they stay in the processor's cache."""
    if isinstance(shares, Factors) and layer.rank is not None and pays(layer.block.numel, layer.rank):
        sums = SettledSums(shares, keys, layer.by_class, layer.weights)
        same_inputs = shares.right.stride(1) == 0  # as `_into_basis` leaves them: one visit's, for all visits
        return (in_segments(sums) if same_inputs else sums).truncated(layer.rank)
    size = max(1, CACHE // (4 * layer.block.numel))
    parts = []
    for start in range(0, len(keys), size):
        rows = slice(start, start + size)
        own = Factors(shares.left[rows], shares.right[rows]) if isinstance(shares, Factors) else shares[rows]
        parts.append(layer.finish(_settled(layer, own, keys[rows])))
    return _joined(parts)


def _joined(parts: Sequence[Part]) -> Part:
    factors = [part for part in parts if isinstance(part, Factors)]
    if factors:
        return Factors(torch.cat([f.left for f in factors]), torch.cat([f.right for f in factors]))
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def _settled(layer: _Layer, shares: Part, keys: npt.NDArray[np.int64]) -> Tensor:
    """sum over visits of W_s * share, `[n, d_out, d_in]` (or `[n, numel]`); keys: segment of each visit, then class."""
    sums = torch.zeros(len(keys), *(layer.block.matrix or (layer.block.numel,)))
    weighted = torch.empty_like(sums)
    labels = keys[:, -1] if layer.by_class else np.full(len(keys), -1)
    for visit in range(keys.shape[1] - layer.by_class):
        for start, stop in runs(np.stack([keys[:, visit], labels], 1)):
            rows, label = slice(start, stop), int(labels[start]) if layer.by_class else None
            own = layer.weights(label)[int(keys[start, visit])]
            if isinstance(shares, Tensor):
                sums[rows].addcmul_(shares[rows, visit], own)
                continue
            for k in range(shares.left.shape[2]):
                torch.mul(shares.left[rows, visit, k, :, None], own, out=weighted[rows])
                sums[rows].addcmul_(weighted[rows], shares.right[rows, visit, k, None, :])
    return sums


def finished(block: Block, rows: Part, basis: Basis) -> Part:
    """Settled deltas in the eigenbasis: their `block.rank` outer products, or weights where rank is None."""
    if isinstance(rows, Factors):
        few = block.rank is not None and rows.left.shape[1] * (rows.left.shape[2] + rows.right.shape[2]) < block.numel
        if block.rank is not None and few:
            return compress(rows, block.rank)
        return finished(block, rows.dense(), basis)
    if block.rank is None or basis.left is None or basis.right is None:
        weights = basis.out_of(rows)
        return matrix_to_parameters(block, weights) if block.matrix else weights
    return truncate(rows, block.rank)


def to_weights(part: Part, basis: Basis) -> Part:
    """Outer products in the eigenbasis to weights."""
    return part if isinstance(part, Tensor) else basis.factors_out_of(part)
