"""From a spool's visits to one row a sample: apply the optimiser's weights and sum over visits, a chunk of samples
at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.attribution import rate_weights, scalar_weights, vector_weights
from amnesiac.capture.blocks import Block, offsets, to_dense, unpack_factors
from amnesiac.capture.spool import SpoolReader
from amnesiac.curvature.matrices import to_matrix
from amnesiac.ledger.spec import LedgerSpec

CHUNK_BYTES = 64 << 20
WIDE = 1 << 20  # parameters from which on a chunk's samples aren't counted by the size of their dense rows


@dataclass(frozen=True)
class VisitTable:
    """The captured visits of each captured sample.

    samples: sample rows `[n]`, ascending;  slots, steps: `[n, V]`, V the largest number of visits, slot -1 where
    there are fewer
    """

    samples: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]

    @property
    def visits(self) -> int:
        """V."""
        return int(self.slots.shape[1])


@dataclass(frozen=True)
class StepWeights:
    """R_t: scalars `[T]`, or for Adam one vector a step `[T, P]` (then `scalar` is None)."""

    scalar: npt.NDArray[np.float64] | None
    vector: npt.NDArray[np.float32] | None = None


def visit_table(index: npt.NDArray[np.int64]) -> VisitTable:
    """Group a spool's index `[visits, 3]` by sample."""
    kept = index[index[:, 2] >= 0]
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    samples, first, counts = np.unique(kept[:, 0], return_index=True, return_counts=True)
    place = np.arange(len(kept)) - np.repeat(first, counts)
    owner = np.repeat(np.arange(len(samples)), counts)
    slots = np.full((len(samples), int(counts.max(initial=0))), -1, np.int64)
    steps = np.zeros_like(slots)
    slots[owner, place], steps[owner, place] = kept[:, 2], kept[:, 1]
    return VisitTable(samples, slots, steps)


def optimizer_weights(spool: SpoolReader) -> StepWeights:
    """R_t of the run's optimiser; for Adam in a file of its own beside the preconditioners, so that sealing can be
    repeated.
    """
    if spool.preconditioners is None:
        return StepWeights(scalar_weights(spool.layout.rule, spool.steps))
    shape = spool.preconditioners.shape
    vectors = np.memmap(spool.folder / "weights.bin", np.float32, "w+", shape=shape)
    vector_weights(spool.layout.rule, spool.steps, spool.preconditioners, vectors)
    return StepWeights(None, vectors)


def step_weights(spec: LedgerSpec, spool: SpoolReader, optimizer: Callable[[], StepWeights]) -> StepWeights:
    """The weights a ledger asks for."""
    if spec.weights == "optimizer":
        return optimizer()
    if spec.weights == "rate":
        return StepWeights(rate_weights(spool.layout.rule, spool.steps))
    lrs = np.array([step.lr if spec.weights == "lr" else 1.0 for step in spool.steps])
    return StepWeights(lrs)


def chunks(table: VisitTable, numel: int, at_least: int = 1) -> Iterator[slice]:
    """Slices of the table's samples whose dense rows take about 64 MiB."""
    size = max(at_least, CHUNK_BYTES // (4 * numel))
    return (slice(start, start + size) for start in range(0, len(table.samples), size))


def fitting(numbers: int, most: int = 256) -> int:
    """Samples of so many numbers each that take at most 64 MiB, one at least and `most` at most."""
    return min(most, max(1, CHUNK_BYTES // (4 * numbers)))


def dense_rows(spool: SpoolReader, table: VisitTable, weights: StepWeights, part: slice) -> list[Tensor]:
    """Each block's weighted sum over visits, dense `[n, numel]`."""
    sums: list[Tensor] | None = None
    for visit in range(table.visits):
        blocks = _dense_blocks(spool, _visit_rows(spool, table, part, visit))
        scaled = _weighted(blocks, table.steps[part, visit], weights)
        sums = scaled if sums is None else [a + b for a, b in zip(sums, scaled, strict=True)]
    assert sums is not None
    return sums


def joined_rows(
    spool: SpoolReader, table: VisitTable, weights: StepWeights, plan: tuple[Block, ...], part: slice
) -> list[Tensor]:
    """Blocks as `plan` has them: the visits' weighted factors side by side, or dense where the plan says so."""
    if all(block.rank is None for block in plan):
        return dense_rows(spool, table, weights, part)
    assert weights.scalar is not None
    visits = [_visit_rows(spool, table, part, v) for v in range(table.visits)]
    scales = [_scale(weights.scalar, table.steps[part, v], rows) for v, rows in enumerate(visits)]
    places = zip(spool.layout.blocks, plan, offsets(spool.layout.blocks), strict=True)
    return [_join_block(block, planned, [rows[:, at] for rows in visits], scales) for block, planned, at in places]


def bounds(
    spool: SpoolReader, table: VisitTable, weights: StepWeights, plan: tuple[Block, ...]
) -> list[tuple[float, float]]:
    """Largest absolute weighted left factor and right factor of each block over the whole spool."""
    largest = np.zeros((len(plan), 2))
    for part in chunks(table, spool.layout.numel):
        _enlarge(largest, plan, joined_rows(spool, table, weights, plan, part))
    return [(float(left), float(right)) for left, right in largest]


def weighted_visit(
    spool: SpoolReader, table: VisitTable, weights: StepWeights, part: slice, visit: int
) -> list[Tensor]:
    """Each block of the samples' `visit`-th visit as captured, times its step's weight (factors: the left one)."""
    assert weights.scalar is not None
    rows = _visit_rows(spool, table, part, visit)
    scale = _scale(weights.scalar, table.steps[part, visit], rows)
    places = zip(spool.layout.blocks, offsets(spool.layout.blocks), strict=True)
    return [_scaled(block, rows[:, at], scale) for block, at in places]


def weighted_visit_bounds(spool: SpoolReader, table: VisitTable, weights: StepWeights) -> list[tuple[float, float]]:
    """`bounds` of the visits' own factors."""
    largest = np.zeros((len(spool.layout.blocks), 2))
    for part in chunks(table, spool.layout.numel):
        for visit in range(table.visits):
            _enlarge(largest, spool.layout.blocks, weighted_visit(spool, table, weights, part, visit))
    return [(float(left), float(right)) for left, right in largest]


def segment_sums(
    spool: SpoolReader, table: VisitTable, weights: StepWeights, chosen: npt.NDArray[np.int64], bounds: Sequence[int]
) -> list[Tensor]:
    """Weighted contributions of some samples (rows of `table`), summed by segment: `[segments, d_out, d_in]` a block
    (or `[segments, numel]`).
    """
    picked = VisitTable(table.samples[chosen], table.slots[chosen], table.steps[chosen])
    blocks = spool.layout.blocks
    sums = [torch.zeros(len(bounds) - 1, *(block.matrix or (block.numel,))) for block in blocks]
    at_once = fitting(spool.layout.size) if spool.layout.numel > WIDE else 1
    for visit in range(picked.visits):
        for part in chunks(picked, spool.layout.numel, at_once):
            rows = weighted_visit(spool, picked, weights, part, visit)
            segments = segment_of(picked.steps[part, visit], bounds)
            for segment in np.unique(segments):
                own = torch.from_numpy(segments == segment)
                for total, block, values in zip(sums, blocks, rows, strict=True):
                    total[segment] += _summed(block, values[own])
    return sums


def segment_of(steps: npt.NDArray[np.int64], bounds: Sequence[int]) -> npt.NDArray[np.int64]:
    """The segment that each step lies in."""
    return np.searchsorted(np.asarray(bounds), steps, side="right") - 1


def _summed(block: Block, rows: Tensor) -> Tensor:
    if block.rank is None:
        return to_matrix(block, rows.sum(0))
    factors = unpack_factors(block, rows)
    return factors.left.flatten(0, 1).T @ factors.right.flatten(0, 1)


def _enlarge(largest: npt.NDArray[np.float64], blocks: tuple[Block, ...], rows: list[Tensor]) -> None:
    """Raise the bounds `[blocks, 2]` to the largest absolute factors of some rows."""
    for k, (block, own) in enumerate(zip(blocks, rows, strict=True)):
        if block.rank is not None:
            factors = unpack_factors(block, own)
            largest[k] = np.maximum(largest[k], [float(factors.left.abs().max()), float(factors.right.abs().max())])


def _scaled(block: Block, rows: Tensor, scale: Tensor) -> Tensor:
    if block.rank is None:
        return rows * scale
    factors = unpack_factors(block, rows)
    return torch.cat([(factors.left * scale[:, None]).flatten(1), factors.right.flatten(1)], 1)


def _visit_rows(spool: SpoolReader, table: VisitTable, part: slice, visit: int) -> Tensor:
    """Decoded rows of each sample's `visit`-th visit; zeros, never another sample's row, where there is none."""
    slots = table.slots[part, visit]
    stored = spool.visits[np.where(slots >= 0, slots, 0)]
    stored[slots < 0] = 0
    return spool.layout.decode(stored)


def _dense_blocks(spool: SpoolReader, rows: Tensor) -> list[Tensor]:
    places = zip(spool.layout.blocks, offsets(spool.layout.blocks), strict=True)
    return [to_dense(block, rows[:, place]) for block, place in places]


def _weighted(blocks: list[Tensor], steps: npt.NDArray[np.int64], weights: StepWeights) -> list[Tensor]:
    if weights.scalar is not None:
        scale = _scale(weights.scalar, steps, blocks[0])
        return [block * scale for block in blocks]
    assert weights.vector is not None
    cuts = np.cumsum([block.shape[1] for block in blocks])[:-1]
    parts = np.split(weights.vector[steps], cuts, axis=1)
    return [block * torch.from_numpy(part) for block, part in zip(blocks, parts, strict=True)]


def _scale(scalar: npt.NDArray[np.float64], steps: npt.NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(scalar[steps]).to(like.dtype)[:, None]


def _join_block(block: Block, planned: Block, visits: list[Tensor], scales: list[Tensor]) -> Tensor:
    if planned.rank is None:
        return torch.stack([to_dense(block, rows) * scale for rows, scale in zip(visits, scales, strict=True)]).sum(0)
    factors = [unpack_factors(block, rows) for rows in visits]
    left = torch.cat([f.left * scale[:, None] for f, scale in zip(factors, scales, strict=True)], 1)
    right = torch.cat([f.right for f in factors], 1)
    return torch.cat([left.flatten(1), right.flatten(1)], 1)
