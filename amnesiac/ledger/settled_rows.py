"""Writing the rows of settled deltas: one streaming pass over the spool for both forms of a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor

from amnesiac.capture.blocks import Block
from amnesiac.capture.layers import Factors
from amnesiac.capture.spool import SpoolReader
from amnesiac.curvature.basis import Basis
from amnesiac.durable import write_bytes
from amnesiac.errors import SettingsError, StoreError
from amnesiac.ledger.codecs import Bytes2D, RowBlock, SampleRows, Vector
from amnesiac.ledger.manifest import LedgerEntry
from amnesiac.ledger.protection import RowPlace
from amnesiac.ledger.settled_codec import MaskedRows, QuantisedRows
from amnesiac.ledger.settling import Finish, Part, Settling, Weights, settled_rows, to_weights
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.ledger.visits import WIDE, StepWeights, VisitTable, chunks
from amnesiac.progress import Progress
from amnesiac.rowstore import RowWriter
from amnesiac.seeding import numpy_generator

MASK = "mask-{}.safetensors"
EXACT_BELOW = 2.0**13  # 53 bits of float64, 40 of them after the point
_CALIBRATION = 256
_COPIES = 8  # of a visit's numbers that settling holds at once, about: shares, products, both forms of a row
Codec = QuantisedRows | MaskedRows | SampleRows


@dataclass(frozen=True)
class SettledWriting:
    """What the rows of a run are written from: the spool, its settling, each captured sample's class `[n]`.

    wide: models with more parameters are settled without forming a whole delta of a layer
    """

    spool: SpoolReader
    table: VisitTable
    steps: StepWeights
    settling: Settling
    classes: npt.NDArray[np.int64]
    weights: Weights
    wide: int = WIDE

    def rows(
        self, specs: Sequence[LedgerSpec], chosen: npt.NDArray[np.int64], finish: Sequence[Finish]
    ) -> list[list[Part]]:
        """Settled deltas of some samples as each spec's `finish` keeps them: a list of blocks for each."""
        order = np.argsort(self.classes[chosen], kind="stable")
        picked, back = chosen[order], torch.from_numpy(np.argsort(order))
        table = VisitTable(self.table.samples[picked], self.table.slots[picked], self.table.steps[picked])
        left_out = [self.classes[picked] if spec.per == "settled class" else None for spec in specs]
        curvature = self.settling.curvature
        forms = settled_rows(self.spool, table, self.steps, self.weights, curvature, left_out, finish, self.wide)
        return [[_reordered(part, back) for part in form] for form in forms]


def _reordered(part: Part, order: Tensor) -> Part:
    return Factors(part.left[order], part.right[order]) if isinstance(part, Factors) else part[order]


def write_settled(
    folder: Path, place: RowPlace, specs: Sequence[LedgerSpec], writing: SettledWriting, progress: Progress
) -> dict[str, tuple[LedgerEntry, Vector]]:
    """Write the row arrays of all `specs`; their manifest entries and the exact sums of their rows."""
    if (writing.classes < 0).any() and any(spec.per == "settled class" for spec in specs):
        raise SettingsError("rows for whole classes need labels: set capture.settled.class_rows to false")
    n, bases = len(writing.table.samples), tuple(layer.basis for layer in writing.settling.curvature.layers)
    codecs = [_codec(folder, spec, writing) for spec in specs]
    finish = [Finish(None if isinstance(codec, MaskedRows) else _plain_blocks(codec), bases) for codec in codecs]
    sized = zip(specs, codecs, strict=True)
    writers = [RowWriter(place.array(spec), n, codec.row_bytes) for spec, codec in sized]
    totals, bounds = [np.zeros(writing.spool.layout.numel) for _ in specs], np.zeros(len(specs))
    for part in chunks(writing.table, _COPIES * _width(writing, finish)):
        chosen = np.arange(n)[part]
        for k, parts in enumerate(writing.rows(specs, chosen, finish)):
            encoded = _encode(codecs[k], parts, bases)
            totals[k] += codecs[k].total(encoded, chosen)
            bounds[k] += _bound(codecs[k], encoded, parts)
            writers[k].append(encoded)
        progress("settle", min(part.stop, n), n)
    _check_exact(bounds)
    named = zip(specs, writers, codecs, totals, strict=True)
    return {spec.name: (_entry(writer, codec, writing.settling), total) for spec, writer, codec, total in named}


def _width(writing: SettledWriting, finish: Sequence[Finish]) -> int:
    """Numbers that settling holds for each sample: all its visits, or the layers that some row keeps whole."""
    layout = writing.spool.layout
    whole = [block.numel for k, block in enumerate(layout.blocks) if any(own.rank(k) is None for own in finish)]
    return max(writing.table.visits * layout.size, sum(whole))


def _bound(codec: Codec, encoded: Bytes2D, parts: Sequence[Part]) -> float:
    """No partial sum over these rows is larger."""
    if not isinstance(codec, SampleRows):
        return codec.bound(encoded)
    return float(sum(part.flatten(1).norm(dim=1).sum() for part in parts if isinstance(part, Tensor)))


def _check_exact(bounds: npt.NDArray[np.float64]) -> None:
    if not (bounds < EXACT_BELOW).all():
        raise StoreError(
            f"settled deltas are so large (sums up to {bounds.max():.3g}) that their sums wouldn't be exact: the run "
            "has diverged; lower the learning rate and train again"
        )


def _codec(folder: Path, spec: LedgerSpec, writing: SettledWriting) -> Codec:
    form, blocks = spec.form, writing.spool.layout.blocks
    if form.rows == "low-rank":
        rank = form.class_rank if spec.per == "settled class" else form.rank
        return QuantisedRows(tuple(_low_rank(block, rank) for block in blocks), 16 if form.bits == 16 else 8)
    dense = tuple(replace(block, rank=None) for block in blocks)
    if form.rows == "masked":
        return _masked(folder, dense, spec, writing)
    if form.bits == 32:
        return SampleRows(tuple(RowBlock(block) for block in dense))
    return QuantisedRows(dense, 16 if form.bits == 16 else 8)


def _low_rank(block: Block, rank: int) -> Block:
    """Outer products where they are smaller than the numbers themselves."""
    small = block.matrix is not None and rank * sum(block.matrix) < block.numel
    return replace(block, rank=rank if small else None)


def _masked(folder: Path, blocks: tuple[Block, ...], spec: LedgerSpec, writing: SettledWriting) -> MaskedRows:
    """Keep the coordinates whose mean square over a calibration set is largest (method.md §4)."""
    n = len(writing.table.samples)
    chosen = numpy_generator(0, "mask").choice(n, min(n, _CALIBRATION), replace=False)
    inside = writing.rows([spec], np.sort(chosen), [Finish(None, ())])[0]
    means = [part.square().flatten(1).mean(0) for part in inside if isinstance(part, Tensor)]
    kept = [mean.topk(max(1, int(spec.form.fraction * len(mean)))).indices.sort().values for mean in means]
    bases = [layer.basis for layer in writing.settling.curvature.layers]
    write_bytes(folder / MASK.format(spec.name), mask_bytes(kept, bases))
    coordinates = tuple(own.numpy() for own in kept)
    return MaskedRows(blocks, 16 if spec.form.bits == 16 else 8, coordinates, tuple(bases), MASK.format(spec.name))


def mask_bytes(coordinates: Sequence[Tensor], bases: Sequence[Basis]) -> bytes:
    """The file beside masked rows: kept coordinates and bases."""
    tensors = {f"{k}.kept": kept for k, kept in enumerate(coordinates)}
    for k, basis in enumerate(bases):
        sides = {"left": basis.left, "right": basis.right, "root": basis.root}
        tensors |= {f"{k}.{side}": value for side, value in sides.items() if value is not None}
    return save({name: value.contiguous() for name, value in tensors.items()})


def masked_from(entry: dict[str, Any], content: bytes) -> MaskedRows:
    """The codec of masked rows from its manifest entry and the file beside."""
    tensors, blocks = load(content), tuple(Block.from_json(block) for block in entry["blocks"])
    sides: Iterator[list[Tensor | None]] = (
        [tensors.get(f"{k}.{side}") for side in ("left", "right", "root")] for k in range(len(blocks))
    )
    coordinates = tuple(tensors[f"{k}.kept"].numpy() for k in range(len(blocks)))
    return MaskedRows(
        blocks,
        entry["bits"],
        coordinates,
        tuple(Basis(left, right, root) for left, right, root in sides),
        entry["file"],
    )


def _encode(codec: Codec, parts: Sequence[Part], bases: Sequence[Basis]) -> Bytes2D:
    if isinstance(codec, QuantisedRows):
        return codec.encode([to_weights(part, basis) for part, basis in zip(parts, bases, strict=True)])
    return codec.encode([part for part in parts if isinstance(part, Tensor)])


def _plain_blocks(codec: QuantisedRows | SampleRows) -> tuple[Block, ...]:
    if isinstance(codec, QuantisedRows):
        return codec.blocks
    return tuple(row_block.block for row_block in codec.blocks)


def _entry(writer: RowWriter, codec: Codec, settling: Settling) -> LedgerEntry:
    return LedgerEntry(writer.n_rows, writer.row_bytes, codec.to_json() | settling.facts(), writer.close())
