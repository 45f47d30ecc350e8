"""Sealing: one streaming pass over the spool for each row array, then the manifest; only then the ledger exists."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.durable import whole_folder
from amnesiac.errors import IncompleteStore, SettingsError
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.ledger.codecs import Codec, SampleRows, SubsetRows, grid_exponents, plan_sample_rows
from amnesiac.ledger.manifest import LedgerEntry, Manifest
from amnesiac.ledger.settle import (
    StepWeights,
    VisitTable,
    bounds,
    chunks,
    dense_rows,
    joined_rows,
    optimizer_weights,
    step_weights,
    visit_table,
)
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.progress import Progress, silent
from amnesiac.rowstore import RowArray, RowWriter

ROWS = "rows.zarr"
SAMPLES = "samples.parquet"
VISITS = "visits.parquet"
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What the caller knows of the run that is being sealed.

    expected_visits: of each sample (epochs); None for a loop of the user's own, where any number is right
    captured:        which samples must have rows, all if None
    """

    run_id: str
    facts: Mapping[str, Any]
    sample_ids: Sequence[str]
    subject_ids: Sequence[str]
    initial: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    expected_visits: int | None = None
    captured: npt.NDArray[np.bool_] | None = None


def seal(
    spool_folder: Path, destination: Path, run: Run, ledgers: Sequence[LedgerSpec], progress: Progress = silent
) -> Manifest:
    """Turn a closed spool into a sealed ledger at `destination`.

    Raises IncompleteStore when a sample has another number of visits than the run's schedule asks for. The
    spool is left for the caller to remove once the ledger stands.
    """
    with read_spool(spool_folder) as spool, whole_folder(destination) as folder:
        table = visit_table(spool.index)
        counts = _check_complete(spool.index, table, run)
        _write_samples(folder, run, counts, table)
        optimizer = optimizer_weights(spool)
        written = [_write(folder, run, spec, spool, table, optimizer, progress) for spec in ledgers]
        manifest = _manifest(folder, run, spool, counts, dict(zip([s.name for s in ledgers], written, strict=True)))
        manifest.write(folder)
    return manifest


def _write(
    folder: Path,
    run: Run,
    spec: LedgerSpec,
    spool: SpoolReader,
    table: VisitTable,
    optimizer: StepWeights,
    progress: Progress,
) -> tuple[LedgerEntry, Vector | None]:
    """Write one row array; its manifest entry, and the sum of its rows where they cover all samples and parameters."""
    array = RowArray(folder / ROWS, spec.name, run.run_id)
    if spec.per == "step":
        return _write_updates(array, spec, spool), None
    weights = step_weights(spec, spool, optimizer)
    if spec.fraction < 1.0:
        return _write_subsets(array, spec, spool, table, weights, progress), None
    return _write_samples_rows(array, spool, table, weights, run.captured is None, progress)


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


def _entry(writer: RowWriter, codec: Codec) -> LedgerEntry:
    return LedgerEntry(writer.n_rows, writer.row_bytes, codec.to_json(), writer.close())


def _check_complete(index: npt.NDArray[np.int64], table: VisitTable, run: Run) -> npt.NDArray[np.int64]:
    counts = np.bincount(index[:, 0], minlength=len(run.sample_ids))
    wrong = np.flatnonzero(counts != run.expected_visits) if run.expected_visits is not None else np.array([], np.int64)
    if len(wrong):
        raise IncompleteStore(
            f"{len(wrong)} samples don't have the {run.expected_visits} visits that the schedule asks for, "
            f"e.g. {run.sample_ids[wrong[0]]!r} has {counts[wrong[0]]}: the run is not over, or visits "
            "were lost; train again"
        )
    expected = np.flatnonzero(counts if run.captured is None else counts * run.captured)
    if len(missing := np.setdiff1d(expected, table.samples)):
        raise IncompleteStore(
            f"{len(missing)} visited samples have no contributions, e.g. {run.sample_ids[missing[0]]!r}"
        )
    return counts


def _write_samples(folder: Path, run: Run, counts: npt.NDArray[np.int64], table: VisitTable) -> None:
    ledger_row = np.full(len(run.sample_ids), -1, np.int64)
    ledger_row[table.samples] = np.arange(len(table.samples))
    columns = {"sample_id": list(run.sample_ids), "subject_id": list(run.subject_ids)}
    frame = pd.DataFrame(columns | {"visits": counts, "ledger_row": ledger_row})
    frame.to_parquet(folder / SAMPLES, index=False)


def _manifest(
    folder: Path,
    run: Run,
    spool: SpoolReader,
    counts: npt.NDArray[np.int64],
    written: Mapping[str, tuple[LedgerEntry, Vector | None]],
) -> Manifest:
    index = pd.DataFrame({"sample": spool.index[:, 0], "step": spool.index[:, 1]})
    index.to_parquet(folder / VISITS, index=False)
    path = _flat(spool, run.final) - _flat(spool, run.initial)
    totals = {name: total for name, (_, total) in written.items() if total is not None}
    return Manifest(
        run_id=run.run_id,
        run=dict(run.facts),
        optimizer=asdict(spool.layout.rule),
        parameters=[[name, list(shape)] for name, shape in spool.layout.parameters],
        initial_sha256=hash_tensors(run.initial),
        final_sha256=hash_tensors(run.final),
        samples_sha256=hash_file(folder / SAMPLES) + hash_file(folder / VISITS),
        visits={
            "samples": len(counts),
            "expected": -1 if run.expected_visits is None else run.expected_visits,
            "smallest": int(counts.min()) if len(counts) else 0,
            "largest": int(counts.max(initial=0)),
            "steps": len(spool.steps),
        },
        entries={name: entry for name, (entry, _) in written.items()},
        residual={name: _relative(path + total, path) for name, total in totals.items()},
    )


def _flat(spool: SpoolReader, weights: Mapping[str, Tensor]) -> Vector:
    parts = [weights[name].detach().double().flatten() for name, _ in spool.layout.parameters]
    return torch.cat(parts).cpu().numpy()


def _relative(rest: Vector, path: Vector) -> float:
    size = float(np.linalg.norm(path))
    return float(np.linalg.norm(rest)) / size if size else 0.0
