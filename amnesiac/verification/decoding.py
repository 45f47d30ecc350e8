"""From the bytes of settled rows to the sum of what they mean, in NumPy.

Codecs (the manifest names one): `quantised`, vectors of 8- or 16-bit whole numbers times a power of two each, a layer
being outer products or all its numbers; `factors`, float32; `masked`, some coordinates of each layer's eigenbasis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.errors import StoreError
from amnesiac.verification.tensors import Array, Tensors

Bytes2D = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Summing = Callable[[Bytes2D], Floats]
GRID = 2.0**-40
NUMBERS: dict[int, Any] = {8: np.dtype("int8"), 16: np.dtype("<i2")}


@dataclass(frozen=True)
class Layer:
    """A layer's part of a row.

    names, shapes: its parameters;  matrix: (d_out, d_in with the bias as last column), None for other layers
    rank: outer products a row, None for all numbers
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    matrix: tuple[int, int] | None
    rank: int | None

    @property
    def numel(self) -> int:
        """Parameters of the layer."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def widths(self) -> list[int]:
        """Lengths of the layer's vectors in a row: left factors, then right ones, or all numbers as one vector."""
        if self.rank is None or self.matrix is None:
            return [self.numel]
        return [self.matrix[0]] * self.rank + [self.matrix[1]] * self.rank

    def flat(self, matrix: Floats) -> Floats:
        """`[d_out, d_in]` to the parameters one after another, `[numel]`."""
        if self.matrix is None or len(self.names) == 1:
            return matrix.ravel()
        return np.concatenate([matrix[:, :-1].ravel(), matrix[:, -1]])

    def total(self, values: Floats) -> Floats:
        """The sum over rows `[n, sum of widths]`, `[numel]`; exact, as all products are multiples of 2^-40."""
        if self.rank is None or self.matrix is None:
            return np.asarray(values.sum(0))
        d_out, d_in = self.matrix
        left, right = values[:, : self.rank * d_out], values[:, self.rank * d_out :]
        return self.flat(left.reshape(-1, d_out).T @ right.reshape(-1, d_in))


def layers_of(codec: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of a row, in order."""
    return tuple(_layer(block) for block in codec["blocks"])


def summing(codec: Mapping[str, Any], mask: Tensors) -> Summing:
    """A function from rows `[n, row_bytes]` to their sum, float64 `[P]`, layer after layer.

    mask: the ledger's file beside masked rows, else empty. Raises StoreError for a codec that isn't known here.
    """
    layers, kind = layers_of(codec), codec["codec"]
    if kind == "quantised":
        return partial(_quantised, layers, codec["bits"])
    if kind == "factors":
        return partial(_float32, layers)
    if kind == "masked":
        return partial(_masked, layers, codec["bits"], mask)
    raise StoreError(f"rows of codec {kind!r} can't be verified: they were written by another version of amnesiac")


def slack(codec: Mapping[str, Any], rows: int) -> float:
    """How far the sum of so many rows may be off: 0, but for masked rows.

    These are matrix products that are rounded to multiples of 2^-40 one by one; another linear algebra library rounds a
    few of them to the next multiple.
    """
    return rows * GRID if codec["codec"] == "masked" else 0.0


def _layer(block: Mapping[str, Any]) -> Layer:
    matrix = block["matrix"]
    return Layer(
        tuple(block["parameters"]), tuple(tuple(shape) for shape in block["shapes"]),
        (matrix[0], matrix[1]) if matrix else None, block["rank"],
    )  # fmt: skip


def _quantised(layers: Sequence[Layer], bits: int, stored: Bytes2D) -> Floats:
    values = _scaled([width for layer in layers for width in layer.widths], bits, stored)
    return _totals(layers, [sum(layer.widths) for layer in layers], values)


def _float32(layers: Sequence[Layer], stored: Bytes2D) -> Floats:
    values = _rounded(np.ascontiguousarray(stored).view("<f4"))
    return _totals(layers, [layer.numel for layer in layers], values)


def _masked(layers: Sequence[Layer], bits: int, mask: Tensors, stored: Bytes2D) -> Floats:
    kept = [mask[f"{k}.kept"] for k in range(len(layers))]
    widths = [len(own) for own in kept]
    values = np.split(_scaled(widths, bits, stored), np.cumsum(widths)[:-1], axis=1)
    total = [np.zeros(layer.numel) for layer in layers]
    for row in range(len(stored)):
        for k, layer in enumerate(layers):
            inside = np.zeros(layer.numel)
            inside[kept[k]] = values[k][row]
            total[k] += _rounded(_out_of_basis(layer, mask, k, inside))
    return np.concatenate(total)


def _out_of_basis(layer: Layer, mask: Tensors, k: int, inside: Floats) -> Floats:
    """From the eigenbasis to weights: L X R^T, or scaled one by one for a layer without a matrix form."""
    left, right, root = (mask.get(f"{k}.{side}") for side in ("left", "right", "root"))
    if left is not None and right is not None and layer.matrix is not None:
        return layer.flat(left.astype(np.float64) @ inside.reshape(layer.matrix) @ right.T.astype(np.float64))
    weights = inside if root is None else root.astype(np.float64) * inside
    return weights if layer.matrix is None else layer.flat(weights.reshape(layer.matrix))


def _scaled(widths: Sequence[int], bits: int, stored: Bytes2D) -> Floats:
    """Vectors side by side `[n, sum of widths]`: an exponent a vector (padded to an even count), then the numbers."""
    count = len(widths)
    exponents = np.ascontiguousarray(stored[:, :count]).view(np.int8)
    numbers = np.ascontiguousarray(stored[:, count + count % 2 :]).view(NUMBERS[bits])
    scales = np.ldexp(1.0, exponents.astype(np.int32))
    return np.asarray(numbers * np.repeat(scales, widths, axis=1))


def _totals(layers: Sequence[Layer], widths: Sequence[int], values: Floats) -> Floats:
    parts = np.split(values, np.cumsum(widths)[:-1], axis=1)
    return np.concatenate([layer.total(part) for layer, part in zip(layers, parts, strict=True)])


def _rounded(values: Array) -> Floats:
    """To multiples of 2^-40."""
    return np.asarray(np.rint(values.astype(np.float64) / GRID) * GRID)
