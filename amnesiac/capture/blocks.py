"""How a visit's gradient share lies in one flat row of numbers: one block a layer.

A *visit* is one sample in one optimiser step. A block is either `factors` (rank x (d_out + d_in) numbers: the outer
products) or
`dense` (as many numbers as the layer has parameters), whichever is exact and smaller, or as low-rank as asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amnesiac.capture.layers import Factors, LayerGradient
from amnesiac.capture.lowrank import compress


@dataclass(frozen=True)
class Block:
    """One layer's part of a row.

    parameters: their qualified names, in the layer's order (weight, bias)
    shapes:     their shapes
    matrix:     (d_out, d_in with the bias column) of a linear map, else None
    rank:       outer products kept a visit; None stores the gradient dense
    """

    layer: str
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    matrix: tuple[int, int] | None
    rank: int | None

    @property
    def size(self) -> int:
        """Numbers in a row."""
        if self.rank is None or self.matrix is None:
            return self.numel
        return self.rank * sum(self.matrix)

    @property
    def numel(self) -> int:
        """Parameters of the layer."""
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Block":
        """The inverse of `to_json`."""
        matrix = value["matrix"]
        return Block(
            value["layer"],
            tuple(value["parameters"]),
            tuple(tuple(s) for s in value["shapes"]),
            (int(matrix[0]), int(matrix[1])) if matrix else None,
            value["rank"],
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def plan_block(name: str, layer: nn.Module, gradient: LayerGradient, rank: int | None) -> Block:
    """Choose the smallest exact form for a layer, or rank `rank` where that is smaller still."""
    own = [(f"{name}.{k}" if name else k, tuple(p.shape)) for k, p in trainable(layer)]
    parameters, shapes = tuple(k for k, _ in own), tuple(s for _, s in own)
    if not isinstance(gradient, Factors):
        return Block(name, parameters, shapes, None, None)
    positions, d_out, d_in = gradient.left.shape[1], gradient.left.shape[2], gradient.right.shape[2]
    keep = positions if rank is None else min(rank, positions)
    exact_needed = rank is None and positions > 1  # the number of positions may change from batch to batch
    small = keep * (d_out + d_in) < d_out * d_in and not exact_needed
    return Block(name, parameters, shapes, (d_out, d_in), keep if small else None)


def trainable(layer: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """A layer's own parameters that are being trained."""
    return [(k, p) for k, p in layer.named_parameters(recurse=False) if p.requires_grad]


def pack(block: Block, gradient: LayerGradient) -> Tensor:
    """A layer's gradients as rows `[n, block.size]`."""
    first = gradient.left if isinstance(gradient, Factors) else next(iter(gradient.values()))
    rows = first.new_empty(len(first), block.size)
    pack_into(rows, block, gradient)
    return rows


def pack_into(rows: Tensor, block: Block, gradient: LayerGradient) -> int:
    """Write a layer's gradients into the first of `rows`, `[at least n, block.size]`; returns n."""
    parts = _parts(block, gradient)
    n, at = len(parts[0]), 0
    for part in parts:
        rows[:n, at : at + part.shape[1]] = part
        at += part.shape[1]
    return n


def _parts(block: Block, gradient: LayerGradient) -> list[Tensor]:
    """What lies side by side in a row, each `[n, numbers]`."""
    if not isinstance(gradient, Factors):
        return [gradient[name.rpartition(".")[2]].flatten(1) for name in block.parameters]
    if block.rank is None:
        return [matrix_to_parameters(block, gradient.dense())]
    kept = gradient if gradient.left.shape[1] == block.rank else compress(gradient, block.rank)
    return [kept.left.flatten(1), kept.right.flatten(1)]


def unpack_factors(block: Block, rows: Tensor) -> Factors:
    """The factors of a `factors` block from rows `[n, block.size]`."""
    assert block.matrix is not None and block.rank is not None
    n, (d_out, d_in) = len(rows), block.matrix
    cut = block.rank * d_out
    return Factors(rows[:, :cut].reshape(n, block.rank, d_out), rows[:, cut:].reshape(n, block.rank, d_in))


def matrix_to_parameters(block: Block, matrix: Tensor) -> Tensor:
    """`[n, d_out, d_in (+ bias)]` to the layer's parameters flattened one after another, `[n, numel]`."""
    has_bias = len(block.parameters) == 2
    weight = matrix[:, :, :-1] if has_bias else matrix
    parts = [weight.flatten(1)] + ([matrix[:, :, -1]] if has_bias else [])
    return torch.cat(parts, 1)


def only_trainable(block_layer: nn.Module, gradient: LayerGradient) -> LayerGradient:
    """A linear map with a frozen weight or bias: its trainable part, dense. Anything else unchanged."""
    own = [k for k, _ in trainable(block_layer)]
    if not isinstance(gradient, Factors) or len(own) == len(list(block_layer.parameters(recurse=False))):
        return gradient
    matrix = gradient.dense()
    parts = {"bias": matrix[:, :, -1], "weight": matrix[:, :, :-1] if block_layer.bias is not None else matrix}
    return {k: parts[k] for k in own}


def to_dense(block: Block, rows: Tensor) -> Tensor:
    """A block's rows as the layer's flattened parameters `[n, block.numel]`."""
    return rows if block.rank is None else matrix_to_parameters(block, unpack_factors(block, rows).dense())


def offsets(blocks: Sequence[Block]) -> list[slice]:
    """Where each block lies in a row."""
    ends = torch.tensor([0] + [b.size for b in blocks]).cumsum(0).tolist()
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]
