"""Row codecs: how one row of a ledger becomes bytes, and how the sum over many rows is taken exactly.

Float sums depend on their order; sums of multiples of a common power of two, small enough, don't (method.md §8.3).
Dense numbers are rounded to multiples of 2^-40. The factors of outer products are rounded to a grid of their block
that is as fine as 53 bits allow for the sum over *all* rows of the ledger: a float64 matrix product over any of them is
exact in any order. Hence deleting A, then B equals deleting both at once, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.blocks import Block, matrix_to_parameters, unpack_factors
from amnesiac.capture.coordinates import subset

Bytes2D = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]
GRID_BITS = 40
FLOAT64_BITS = 53
FACTOR_BITS = 24


@dataclass(frozen=True)
class RowBlock:
    """A block of a sealed row; `block.rank` counts all outer products of a sample, over all its visits.

    left_exponent, right_exponent: the factors are multiples of 2^exponent
    """

    block: Block
    left_exponent: int = 0
    right_exponent: int = 0


@dataclass(frozen=True)
class SampleRows:
    """Rows of a whole model, one a sample: factors where that is smaller, else dense float32."""

    blocks: tuple[RowBlock, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * sum(b.block.size for b in self.blocks)

    def encode(self, parts: Sequence[Tensor]) -> Bytes2D:
        """Blocks `[n, block.size]` to bytes; factors are rounded to their grid."""
        rounded = [_on_grid(row_block, part) for row_block, part in zip(self.blocks, parts, strict=True)]
        return np.ascontiguousarray(torch.cat(rounded, 1).float().numpy()).view(np.uint8)

    def total(self, stored: Bytes2D, rows: npt.NDArray[np.int64]) -> Vector:
        """The exact sum of rows as one vector: the layers' parameters one after another, float64 `[sum of numel]`."""
        values = torch.from_numpy(np.ascontiguousarray(stored).view(np.float32))
        sums, start = [], 0
        for row_block in self.blocks:
            sums.append(_exact_sum(row_block, values[:, start : start + row_block.block.size]))
            start += row_block.block.size
        return torch.cat(sums).numpy()

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "codec": "factors",
            "blocks": [b.block.to_json() | {"grid": [b.left_exponent, b.right_exponent]} for b in self.blocks],
        }


@dataclass(frozen=True)
class SubsetRows:
    """Dense float32 values on a random subset of the coordinates.

    shared: all rows have the same coordinates (whole-batch updates), else each row draws its own from its number
    """

    shapes: tuple[tuple[int, ...], ...]
    fraction: float
    shared: bool

    @property
    def numel(self) -> int:
        """P."""
        return sum(torch.Size(s).numel() for s in self.shapes)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * sum(int(torch.Size(s).numel() * self.fraction) for s in self.shapes)

    def coordinates(self, row: int) -> npt.NDArray[np.int64]:
        """The flat coordinates a row keeps."""
        return subset(self.shapes, self.fraction, "updates" if self.shared else row)

    def total(self, stored: Bytes2D, rows: npt.NDArray[np.int64]) -> Vector:
        """The exact sum of rows, float64 `[P]`, zero where nothing was kept."""
        values, total = on_grid(np.ascontiguousarray(stored).view(np.float32)), np.zeros(self.numel)
        if self.shared:
            total[self.coordinates(0)] = values.sum(0)
            return total
        for value, row in zip(values, rows.tolist(), strict=True):
            total[self.coordinates(row)] += value
        return total

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"codec": "subset", "shapes": [list(s) for s in self.shapes]} | {
            "fraction": self.fraction,
            "shared": self.shared,
        }


@dataclass(frozen=True)
class SegmentRows:
    """Rows with a part for each segment: `segments` rows of `part` side by side."""

    part: SampleRows
    segments: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.part.row_bytes * self.segments

    def total(self, stored: Bytes2D, rows: npt.NDArray[np.int64]) -> Vector:
        """The exact sums of each segment's parts, float64 `[segments * P]`."""
        parts = np.split(stored, self.segments, axis=1)
        return np.concatenate([self.part.total(part, rows) for part in parts])

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"codec": "segments", "segments": self.segments, "part": self.part.to_json()}


def plan_sample_rows(blocks: Sequence[Block], visits: int, scalar_weights: bool) -> tuple[Block, ...]:
    """The smaller form of each block for samples of at most `visits` visits; vector weights make every block dense."""

    def plan(block: Block) -> Block:
        if block.rank is None or not scalar_weights:
            return replace(block, rank=None)
        joined = replace(block, rank=block.rank * visits)
        return joined if joined.size < block.numel else replace(block, rank=None)

    return tuple(plan(block) for block in blocks)


def grid_exponents(block: Block, left_bound: float, right_bound: float, rows: int) -> RowBlock:
    """The finest grid on which the sum over all rows is exact, for factors that are bounded so.

    53 bits hold the sum of rows x rank products: what is left of them is shared between the factors (4 more for the
    left one, whose values span more), at most 24 each, which float32 holds. 4,000 samples of 10 visits: 20 and 17 bits.
    """
    if block.rank is None:
        return RowBlock(block)
    bits = FLOAT64_BITS - (rows * block.rank - 1).bit_length()
    left = min((bits + 4) // 2, FACTOR_BITS)
    right = min(bits - left, FACTOR_BITS)
    return RowBlock(block, _exponent(left_bound) - left, _exponent(right_bound) - right)


def on_grid(values: npt.NDArray[Any]) -> Vector:
    """Round to multiples of 2^-40, as float64."""
    rounded = values.astype(np.float64)
    rounded *= 2.0**GRID_BITS  # in place, and no ldexp: ten times faster, the same bits
    np.rint(rounded, out=rounded)
    rounded *= 2.0**-GRID_BITS
    return rounded


def _exponent(bound: float) -> int:
    return int(np.frexp(bound)[1]) if bound > 0 else 0


def _on_grid(row_block: RowBlock, part: Tensor) -> Tensor:
    if row_block.block.rank is None:
        return part
    factors = unpack_factors(row_block.block, part.double())
    left = _round_to(factors.left, row_block.left_exponent)
    right = _round_to(factors.right, row_block.right_exponent)
    return torch.cat([left.flatten(1), right.flatten(1)], 1)


def _round_to(values: Tensor, exponent: int) -> Tensor:
    return torch.round(values * 2.0**-exponent) * 2.0**exponent


def _exact_sum(row_block: RowBlock, values: Tensor) -> Tensor:
    block = row_block.block
    if block.rank is None:
        return torch.from_numpy(on_grid(values.numpy()).sum(0))
    factors = unpack_factors(block, values.double())
    matrix = factors.left.flatten(0, 1).T @ factors.right.flatten(0, 1)
    return matrix_to_parameters(block, matrix.unsqueeze(0)).squeeze(0)
