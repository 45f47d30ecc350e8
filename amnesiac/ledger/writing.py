"""Writing the row arrays of a ledger: one streaming pass over the spool for each."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amnesiac.capture.spool import SpoolReader
from amnesiac.errors import SettingsError
from amnesiac.ledger.codecs import SampleRows, SegmentRows, SubsetRows, grid_exponents, plan_sample_rows
from amnesiac.ledger.manifest import LedgerEntry
from amnesiac.ledger.protection import RowPlace
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.ledger.visits import (
    StepWeights,
    VisitTable,
    bounds,
    chunks,
    dense_rows,
    joined_rows,
    step_weights,
    weighted_visit,
    weighted_visit_bounds,
)
from amnesiac.progress import Progress
from amnesiac.rowstore import RowArray, RowWriter

Vector = npt.NDArray[np.float64]


def write_rows(
    place: RowPlace,
    spec: LedgerSpec,
    spool: SpoolReader,
    table: VisitTable,
    optimizer: Callable[[], StepWeights],
    summed: bool,
    progress: Progress,
    facts: Mapping[str, Any],
) -> tuple[LedgerEntry, Vector | None]:
    """Write one row array; its manifest entry, and the sum of its rows if `summed` and they cover all parameters.

    facts: what the manifest says beside the codec of unsettled rows
    """
    array = place.array(spec)
    if spec.per == "step":
        return _write_updates(array, spec, spool), None
    weights = step_weights(spec, spool, optimizer)
    if spec.per == "segment":
        return _write_segments(array, spool, table, weights, summed, progress, facts)
    if spec.fraction < 1.0:
        return _write_subsets(array, spec, spool, table, weights, progress), None
    return _write_samples_rows(array, spool, table, weights, summed, progress)


def _write_samples_rows(
    array: RowArray, spool: SpoolReader, table: VisitTable, weights: StepWeights, summed: bool, progress: Progress
) -> tuple[LedgerEntry, Vector | None]:
    plan = plan_sample_rows(spool.layout.blocks, table.visits, weights.scalar is not None)
    limits = bounds(spool, table, weights, plan) if any(b.rank for b in plan) else [(0.0, 0.0)] * len(plan)
    codec = SampleRows(
        tuple(grid_exponents(b, *limit, len(table.samples)) for b, limit in zip(plan, limits, strict=True))
    )
    writer, total = RowWriter(array, len(table.samples), codec.row_bytes), np.zeros(spool.layout.numel)
    for part in chunks(table, spool.layout.numel):
        rows = codec.encode(joined_rows(spool, table, weights, plan, part))
        if summed:  # the residual's; as slow as encoding, and no use where only some samples have rows
            total += codec.total(rows, table.samples[part])
        writer.append(rows)
        progress(f"seal {array.name}", min(part.stop, len(table.samples)), len(table.samples))
    return _entry(writer, codec), total if summed else None


def _write_segments(
    array: RowArray,
    spool: SpoolReader,
    table: VisitTable,
    weights: StepWeights,
    summed: bool,
    progress: Progress,
    facts: Mapping[str, Any],
) -> tuple[LedgerEntry, Vector | None]:
    """A sample's visits one after another, each with its step's weight: what settling needs apart.

    They add up to the plain delta, so to the path of the weights, where no preconditioner was left out.
    """
    summed = summed and not spool.layout.rule.preconditioned
    _check_segments(spool, table)
    blocks, n_parts = spool.layout.blocks, len(table.samples) * table.visits
    limits = weighted_visit_bounds(spool, table, weights)
    codec = SampleRows(tuple(grid_exponents(b, *limit, n_parts) for b, limit in zip(blocks, limits, strict=True)))
    segments = SegmentRows(codec, table.visits)
    writer, total = RowWriter(array, len(table.samples), segments.row_bytes), np.zeros(spool.layout.numel)
    for part in chunks(table, spool.layout.numel):
        visits = [codec.encode(weighted_visit(spool, table, weights, part, v)) for v in range(table.visits)]
        for rows in visits if summed else ():
            total += codec.total(rows, table.samples[part])
        writer.append(np.concatenate(visits, 1))
        progress(f"seal {array.name}", min(part.stop, len(table.samples)), len(table.samples))
    return _entry(writer, segments, facts), total if summed else None


def _check_segments(spool: SpoolReader, table: VisitTable) -> None:
    """Each sample's v-th visit must lie in the v-th of equal segments (one visit an epoch, as in `amnesiac train`)."""
    length = len(spool.steps) // max(table.visits, 1)
    if (table.slots < 0).any() or (table.steps // max(length, 1) != np.arange(table.visits)).any():
        raise SettingsError(
            "settled deltas need every sample to be seen once in each segment (epoch); this run's visits differ. "
            "Take 'settled' out of capture.methods, or train with `amnesiac train`"
        )


def _write_subsets(
    array: RowArray, spec: LedgerSpec, spool: SpoolReader, table: VisitTable, weights: StepWeights, progress: Progress
) -> LedgerEntry:
    codec = SubsetRows(tuple(shape for _, shape in spool.layout.parameters), spec.fraction, shared=False)
    if codec.row_bytes == 0:
        raise SettingsError(f"capture.subset_fraction {spec.fraction} keeps no coordinate of any parameter: raise it")
    writer = RowWriter(array, len(table.samples), codec.row_bytes)
    for part in chunks(table, spool.layout.numel):
        dense = torch.cat(dense_rows(spool, table, weights, part), 1).float().numpy()
        chosen = [row[codec.coordinates(s)] for row, s in zip(dense, table.samples[part].tolist(), strict=True)]
        writer.append(np.stack(chosen).view(np.uint8))
        progress(f"seal {array.name}", min(part.stop, len(table.samples)), len(table.samples))
    return _entry(writer, codec)


def _write_updates(array: RowArray, spec: LedgerSpec, spool: SpoolReader) -> LedgerEntry:
    """Whole-batch updates: what is added to take a step back is the update's negative."""
    start = 0
    shapes = tuple(shape for _, shape in spool.layout.parameters)
    for name, fraction in spool.layout.updates.items():
        codec = SubsetRows(shapes, fraction, shared=True)
        if name == spec.name:
            break
        start += codec.row_bytes // 4
    writer = RowWriter(array, len(spool.steps), codec.row_bytes)
    for first in range(0, len(spool.steps), 256):
        rows = -np.asarray(spool.updates[first : first + 256, start : start + codec.row_bytes // 4])
        writer.append(np.ascontiguousarray(rows).view(np.uint8))
    return _entry(writer, codec)


def _entry(
    writer: RowWriter, codec: SampleRows | SegmentRows | SubsetRows, facts: Mapping[str, Any] = MappingProxyType({})
) -> LedgerEntry:
    return LedgerEntry(writer.n_rows, writer.row_bytes, codec.to_json() | dict(facts), writer.close())
