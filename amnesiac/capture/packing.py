"""From what the hooks saw of some mini-batches to the rows that a spool holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amnesiac.capture.blocks import Block, offsets, pack_into
from amnesiac.capture.hooks import Call, Calls, shares
from amnesiac.capture.layers import SAMPLEWISE, Factors, LayerGradient
from amnesiac.capture.spool import Layout

PART_NUMBERS = 600_000
"""Numbers of a layer's inputs (a convolution's patches) that are worked on at once: so many stay in a core's cache."""


@dataclass(frozen=True)
class Visits:
    """A mini-batch that was seen.

    samples: its rows `[n]`;  kept: which of them are captured `[n]`;  step: of the optimiser, counted from 0
    calls:   by layer, what its shares will be computed from;  done: the shares of layers that can't wait
    """

    samples: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    step: int
    calls: Mapping[str, Calls]
    done: Mapping[str, LayerGradient]

    @property
    def nbytes(self) -> int:
        """What is held until the rows are written."""
        return sum(call.x.nbytes + call.b.nbytes for calls in self.calls.values() for call in calls)


def can_wait(layer: nn.Module) -> bool:
    """Whether a layer's shares may be computed after the step; else they mix samples, or read weights."""
    return type(layer) in SAMPLEWISE


@torch.no_grad()
def packed(layout: Layout, layers: Mapping[str, nn.Module], group: Sequence[Visits]) -> Tensor:
    """Rows of the captured samples of some mini-batches, one after another, `[sum(kept), layout.size]`."""
    device = next((call.x.device for calls in group[0].calls.values() for call in calls), None)
    count = sum(int(visits.kept.sum()) for visits in group)
    dtype = torch.float64 if layout.dtype == "float64" else torch.float32
    rows = torch.empty(count, layout.size, dtype=dtype, device=device)
    for block, place in zip(layout.blocks, offsets(layout.blocks), strict=True):
        at = 0
        for gradient in _gradients(block, layers[block.layer], group):
            at += pack_into(rows[at:, place], block, gradient)
    return rows


def _gradients(block: Block, layer: nn.Module, group: Sequence[Visits]) -> Iterator[LayerGradient]:
    """The layer's shares of the captured samples, part after part."""
    if not can_wait(layer):
        yield from (_chosen(visits.done[block.layer], visits.kept) for visits in group)
        return
    for calls in _joined([_captured(v.calls[block.layer], v.kept) for v in group if v.kept.any()]):
        size = max(1, PART_NUMBERS // max(1, sum(_numbers(layer, call) for call in calls)))
        for part in zip(*(_split(call, size) for call in calls), strict=True):
            yield shares(block.layer, layer, part)


def _joined(seen: list[Calls]) -> list[Calls]:
    """Mini-batches as one, where their samples have the same shape."""
    shapes = {tuple((call.x.shape[1:], call.b.shape[1:]) for call in calls) for calls in seen}
    if len(seen) < 2 or len(shapes) > 1:
        return seen
    return [[_cat(same) for same in zip(*seen, strict=True)]]


def _cat(calls: Sequence[Call]) -> Call:
    """One call that saw the samples of all; the check for changed inputs is made here, before they are copied."""
    x, b = torch.cat([call.x for call in calls]), torch.cat([call.b for call in calls])
    return Call(x, b, 0 if all(call.x._version == call.version for call in calls) else -1, True)


def _captured(calls: Calls, kept: npt.NDArray[np.bool_]) -> Calls:
    if kept.all():
        return calls
    rows = torch.from_numpy(np.flatnonzero(kept))
    return [replace(call, x=call.x[rows], b=call.b[rows], version=call.version - call.x._version) for call in calls]


def _split(call: Call, size: int) -> Iterator[Call]:
    """Parts of `size` samples; they are views, whose version is that of the whole."""
    for x, b in zip(torch.split(call.x, size), torch.split(call.b, size), strict=True):
        yield replace(call, x=x, b=b)


def _numbers(layer: nn.Module, call: Call) -> int:
    """Numbers that a sample's share is computed from."""
    if isinstance(layer, nn.Conv2d):
        return call.b[0, 0].numel() * (layer.weight[0].numel() + layer.out_channels)
    return call.x[0].numel() + call.b[0].numel()


def _chosen(gradient: LayerGradient, kept: npt.NDArray[np.bool_]) -> LayerGradient:
    if kept.all():
        return gradient
    rows = torch.from_numpy(np.flatnonzero(kept))
    if isinstance(gradient, Factors):
        return Factors(gradient.left[rows], gradient.right[rows])
    return {name: values[rows] for name, values in gradient.items()}
