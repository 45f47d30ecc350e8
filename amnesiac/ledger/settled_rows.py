"""Writing the rows of settled deltas: one streaming pass over the spool for both forms of a row."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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

    @property
    def bases(self) -> tuple[Basis, ...]:
        """The layers' eigenbases."""
        return tuple(layer.basis for layer in self.settling.curvature.layers)

    def rows(
        self, by_class: Sequence[bool], chosen: npt.NDArray[np.int64], finish: Sequence[Finish]
    ) -> list[list[Part]]:
        """Settled deltas of some samples as each form's `finish` keeps them: a list of blocks for each.

        by_class: of each form, whether the samples' own classes are left out of the curvature
        """
        order = np.argsort(self.classes[chosen], kind="stable")
        picked, back = chosen[order], torch.from_numpy(np.argsort(order))
        table = VisitTable(self.table.samples[picked], self.table.slots[picked], self.table.steps[picked])
        left_out = [self.classes[picked] if own else None for own in by_class]
        curvature = self.settling.curvature
        forms = settled_rows(self.spool, table, self.steps, self.weights, curvature, left_out, finish, self.wide)
        return [[_reordered(part, back) for part in form] for form in forms]


def _reordered(part: Part, order: Tensor) -> Part:
    return Factors(part.left[order], part.right[order]) if isinstance(part, Factors) else part[order]


@dataclass(frozen=True)
class SettledArrays:
    """The row arrays that settling fills: whether each is for whole classes, and its rows' codec."""

    by_class: tuple[bool, ...]
    codecs: tuple[Codec, ...]

    def finish(self, bases: tuple[Basis, ...]) -> list[Finish]:
        """What each array keeps of settled deltas."""
        return [Finish(None if isinstance(c, MaskedRows) else _plain_blocks(c), bases) for c in self.codecs]


@dataclass(frozen=True)
class SettledPart:
    """Rows of some samples for each array, `[n, row_bytes]`, their exact sum `[P]`, and what no partial sum exceeds."""

    encoded: tuple[Bytes2D, ...]
    totals: tuple[Vector, ...]
    bounds: tuple[float, ...]


Settle = Callable[[SettledWriting, SettledArrays, Sequence[slice]], Iterable[SettledPart]]


def settle_here(writing: SettledWriting, arrays: SettledArrays, slices: Sequence[slice]) -> Iterator[SettledPart]:
    """The parts of all samples in order, each made when it is asked for."""
    every = np.arange(len(writing.table.samples))
    return (settle_part(writing, arrays, every[part]) for part in slices)


def settle_part(writing: SettledWriting, arrays: SettledArrays, chosen: npt.NDArray[np.int64]) -> SettledPart:
    """Settle some samples (rows of the table `[n]`) into the rows of all arrays."""
    bases = writing.bases
    forms = writing.rows(arrays.by_class, chosen, arrays.finish(bases))
    encoded = [_encode(codec, parts, bases) for codec, parts in zip(arrays.codecs, forms, strict=True)]
    totals = (codec.total(rows, chosen) for codec, rows in zip(arrays.codecs, encoded, strict=True))
    bounds = (_bound(*own) for own in zip(arrays.codecs, encoded, forms, strict=True))
    return SettledPart(tuple(encoded), tuple(totals), tuple(bounds))


def write_settled(
    folder: Path,
    place: RowPlace,
    specs: Sequence[LedgerSpec],
    writing: SettledWriting,
    progress: Progress,
    settle: Settle = settle_here,
) -> dict[str, tuple[LedgerEntry, Vector]]:
    """Write the row arrays of all `specs`; their manifest entries and the exact sums of their rows."""
    by_class, n = tuple(spec.per == "settled class" for spec in specs), len(writing.table.samples)
    if (writing.classes < 0).any() and any(by_class):
        raise SettingsError("rows for whole classes need labels: set capture.settled.class_rows to false")
    arrays = SettledArrays(by_class, tuple(_codec(folder, spec, writing) for spec in specs))
    sized = zip(specs, arrays.codecs, strict=True)
    writers = [RowWriter(place.array(spec), n, codec.row_bytes) for spec, codec in sized]
    totals, bounds, done = [np.zeros(writing.spool.layout.numel) for _ in specs], np.zeros(len(specs)), 0
    slices = list(chunks(writing.table, _COPIES * _width(writing, arrays.finish(writing.bases))))
    for part in settle(writing, arrays, slices):
        for writer, encoded, total, own in zip(writers, part.encoded, totals, part.totals, strict=True):
            writer.append(encoded)
            total += own
        bounds, done = bounds + part.bounds, done + len(part.encoded[0])
        progress("settle", done, n)
    _check_exact(bounds)
    named = zip(specs, writers, arrays.codecs, totals, strict=True)
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
    inside = writing.rows([spec.per == "settled class"], np.sort(chosen), [Finish(None, ())])[0]
    means = [part.square().flatten(1).mean(0) for part in inside if isinstance(part, Tensor)]
    kept = [mean.topk(max(1, int(spec.form.fraction * len(mean)))).indices.sort().values for mean in means]
    coordinates = tuple(own.numpy() for own in kept)
    codec = MaskedRows(
        blocks, 16 if spec.form.bits == 16 else 8, coordinates, writing.bases, MASK.format(spec.name)
    )  # fmt: skip
    write_bytes(folder / codec.file, mask_bytes(codec))
    return codec


def mask_bytes(codec: MaskedRows) -> bytes:
    """The file beside masked rows: kept coordinates and bases."""
    tensors = {f"{k}.kept": torch.from_numpy(kept) for k, kept in enumerate(codec.coordinates)}
    for k, basis in enumerate(codec.bases):
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
