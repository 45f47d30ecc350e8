"""Rows of settled deltas, quantised so that sums over them are exact (method.md §4 and §8.3).

Every stored vector is whole numbers of 8 or 16 bits times a power of two of its own. Exponents are kept so large that
each outer product, and each dense number, is a multiple of 2^-40: a float64 sum of any of them, in any order, is
exact, as long as it stays below 2^13.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.blocks import Block, matrix_to_parameters
from amnesiac.capture.layers import Factors
from amnesiac.curvature.basis import Basis
from amnesiac.curvature.matrices import to_flat
from amnesiac.errors import StoreError
from amnesiac.ledger.codecs import GRID_BITS, Bytes2D, Vector, on_grid

Bits = Literal[8, 16]
Part = Factors | Tensor
INTEGERS: dict[int, Any] = {8: np.dtype("int8"), 16: np.dtype("<i2")}


@dataclass(frozen=True)
class QuantisedRows:
    """A row is, layer after layer, `block.rank` outer products, or all numbers where rank is None."""

    blocks: tuple[Block, ...]
    bits: Bits

    @property
    def row_bytes(self) -> int:
        """Bytes of a row: exponents (one byte a vector), then the numbers."""
        return self._exponents + sum(self._widths) * self.bits // 8

    def encode(self, parts: Sequence[Part]) -> Bytes2D:
        """Factors `[n, rank, d]` or numbers `[n, numel]` of each block, in the layer's own coordinates, to bytes."""
        vectors = [q for block, part in zip(self.blocks, parts, strict=True) for q in self._quantise(block, part)]
        exponents = np.stack([exponent for _, exponent in vectors], 1).astype(np.int8)
        exponents = np.pad(exponents, ((0, 0), (0, self._exponents - exponents.shape[1])))
        numbers = np.concatenate([whole for whole, _ in vectors], 1).astype(INTEGERS[self.bits])
        return np.concatenate([exponents.view(np.uint8), np.ascontiguousarray(numbers).view(np.uint8)], 1)

    def total(self, stored: Bytes2D, rows: npt.NDArray[np.int64]) -> Vector:
        """The exact sum of rows, float64 `[P]`, the layers' parameters one after another."""
        vectors, sums = list(self._vectors(stored)), []
        for block in self.blocks:
            rank = block.rank
            if rank is None:
                sums.append(torch.from_numpy(vectors.pop(0).sum(0)))
                continue
            left, right = (torch.from_numpy(np.concatenate([vectors.pop(0) for _ in range(rank)])) for _ in "lr")
            sums.append(matrix_to_parameters(block, (left.T @ right).unsqueeze(0)).squeeze(0))
        return torch.cat(sums).numpy()

    def bound(self, stored: Bytes2D) -> float:
        """No partial sum over these rows, nor of a row's outer products, has a larger number."""
        vectors, bound = [np.abs(vector).max(1) for vector in self._vectors(stored)], 0.0
        for block in self.blocks:
            rank = block.rank
            if rank is None:
                bound = max(bound, float(vectors.pop(0).sum()))
                continue
            left, right = ([vectors.pop(0) for _ in range(rank)] for _ in "lr")
            bound = max(bound, float(sum((u * v).sum() for u, v in zip(left, right, strict=True))))
        return bound

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"codec": "quantised", "bits": self.bits, "blocks": [block.to_json() for block in self.blocks]}

    @property
    def _widths(self) -> list[int]:
        """Lengths of the vectors of a row: a block's left factors, then its right ones, or all its numbers."""
        widths: list[int] = []
        for block in self.blocks:
            if block.rank is None or block.matrix is None:
                widths.append(block.numel)
            else:
                widths += [block.matrix[0]] * block.rank + [block.matrix[1]] * block.rank
        return widths

    @property
    def _exponents(self) -> int:
        """Even, so that 16-bit numbers start at an even byte."""
        return len(self._widths) + len(self._widths) % 2

    def _quantise(self, block: Block, part: Part) -> Iterator[tuple[Vector, npt.NDArray[np.int64]]]:
        if not isinstance(part, Factors):
            yield quantise(part.double().numpy(), self.bits, -GRID_BITS)
            return
        right = [quantise(part.right[:, k].double().numpy(), self.bits) for k in range(part.right.shape[1])]
        for k, (_, exponent) in enumerate(right):
            yield quantise(part.left[:, k].double().numpy(), self.bits, -GRID_BITS - exponent)
        yield from right

    def _vectors(self, stored: Bytes2D) -> Iterator[Vector]:
        exponents = np.ascontiguousarray(stored[:, : self._exponents]).view(np.int8)
        numbers = np.ascontiguousarray(stored[:, self._exponents :]).view(INTEGERS[self.bits])
        ends = np.concatenate([[0], np.cumsum(self._widths)])
        for k, (a, b) in enumerate(pairwise(ends)):
            yield np.ldexp(numbers[:, a:b].astype(np.float64), exponents[:, k : k + 1].astype(np.int32))


@dataclass(frozen=True)
class MaskedRows:
    """Some coordinates of the eigenbasis, the same for all rows; deleting turns row after row back into weights.

    blocks: the layers;  coordinates: flat indices of each layer that are kept;  bases: the layers' eigenbases
    file: of the ledger that holds coordinates and bases
    """

    blocks: tuple[Block, ...]
    bits: Bits
    coordinates: tuple[npt.NDArray[np.int64], ...]
    bases: tuple[Basis, ...]
    file: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self._inner.row_bytes

    def encode(self, parts: Sequence[Tensor]) -> Bytes2D:
        """Blocks `[n, d_out, d_in]` (or `[n, numel]`) in the eigenbasis to bytes."""
        chosen = (part.flatten(1)[:, kept] for part, kept in zip(parts, self.coordinates, strict=True))
        return self._inner.encode(list(chosen))

    def total(self, stored: Bytes2D, rows: npt.NDArray[np.int64]) -> Vector:
        """The exact sum of rows, float64 `[P]`: each is rounded to multiples of 2^-40 once it is weights again."""
        vectors = list(self._inner._vectors(stored))
        total = np.zeros(sum(block.numel for block in self.blocks))
        for row in range(len(stored)):
            total += on_grid(torch.cat(list(self._decoded([vector[row] for vector in vectors]))).numpy())
        return total

    def bound(self, stored: Bytes2D) -> float:
        """No partial sum over these rows has a larger number: |L X R^T| is at most |L| |X| |R|."""
        sizes = [float(np.linalg.norm(vector, axis=1).sum()) for vector in self._inner._vectors(stored)]
        return max(size * basis.largest for size, basis in zip(sizes, self.bases, strict=True))

    def to_json(self) -> dict[str, Any]:
        """For the manifest; the coordinates and bases lie in a file beside."""
        blocks = [block.to_json() for block in self.blocks]
        return {"codec": "masked", "bits": self.bits, "file": self.file, "blocks": blocks}

    @property
    def _inner(self) -> QuantisedRows:
        kept = zip(self.blocks, self.coordinates, strict=True)
        blocks = (replace(block, shapes=((len(own),),), matrix=None, rank=None) for block, own in kept)
        return QuantisedRows(tuple(blocks), self.bits)

    def _decoded(self, vectors: Sequence[Vector]) -> Iterator[Tensor]:
        for block, kept, basis, values in zip(self.blocks, self.coordinates, self.bases, vectors, strict=True):
            inside = torch.zeros(block.numel, dtype=torch.float64)
            inside[torch.from_numpy(kept)] = torch.from_numpy(values)
            yield to_flat(block, basis.out_of(inside.reshape(block.matrix or (block.numel,)))).flatten()


def quantise(
    vectors: Vector, bits: int, smallest: int | npt.NDArray[np.int64] = -127
) -> tuple[Vector, npt.NDArray[np.int64]]:
    """Whole numbers `[n, d]` and exponents `[n]`, not below `smallest`: vectors are about whole * 2^exponent.

    Raises StoreError where a number is infinite or none.
    """
    largest = np.abs(vectors).max(1, initial=0.0)
    if not np.isfinite(largest).all():
        raise StoreError("settled deltas are not finite: the run has diverged; lower the learning rate and train again")
    limit = 2.0 ** (bits - 1) - 1
    natural = np.ceil(np.log2(np.maximum(largest / limit, 2.0**-126))).astype(np.int64)
    exponents = np.maximum(natural, smallest)
    whole = np.clip(np.rint(np.ldexp(vectors, -exponents[:, None].astype(np.int32))), -limit, limit)
    return whole, exponents
