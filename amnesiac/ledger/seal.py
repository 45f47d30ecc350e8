"""Sealing: one streaming pass over the spool for each row array, then the manifest; only then the ledger exists."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.durable import whole_folder, write_bytes
from amnesiac.errors import IncompleteStore
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.keys import KeyStore, seal_ids
from amnesiac.ledger.base import BASE, write_base
from amnesiac.ledger.index import write_index
from amnesiac.ledger.manifest import LedgerEntry, Manifest
from amnesiac.ledger.protection import ROWS, STEP_KEYS, Owners, RowPlace, owners, row_place, step_key_bytes
from amnesiac.ledger.settled_parts import Spread, settle_elsewhere
from amnesiac.ledger.settled_rows import SettledWriting, settle_here, write_settled
from amnesiac.ledger.settling import Settling, Weights
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.ledger.visits import VisitTable, optimizer_weights, step_weights, visit_table
from amnesiac.ledger.writing import write_rows
from amnesiac.progress import Progress, silent

SAMPLES = "samples.parquet"
VISITS = "visits.parquet"
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What the caller knows of the run that is being sealed.

    expected_visits: of each sample (epochs); None for a loop of the user's own, where any number is right
    captured:        which samples must have rows, all if None
    labels:          class of each sample, where classes are known
    attachments:     further files of the ledger, by name (the curvature)
    keys:            makes a key for each sample, and for each step whose whole update is kept, and encrypts rows and
                     ids with them; None: all lies in clear
    spread:        settles the rows in other processes (settled_parts.py); None: in this one
    """

    run_id: str
    facts: Mapping[str, Any]
    sample_ids: Sequence[str]
    subject_ids: Sequence[str]
    initial: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    expected_visits: int | None = None
    captured: npt.NDArray[np.bool_] | None = None
    labels: npt.NDArray[np.int64] | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    settling: Settling | None = None
    keys: KeyStore | None = None
    spread: Spread | None = None


def seal(
    spool_folder: Path, destination: Path, run: Run, ledgers: Sequence[LedgerSpec], progress: Progress = silent
) -> Manifest:
    """Turn a closed spool into a sealed ledger at `destination`.

    Raises IncompleteStore when a sample has another number of visits than the run's schedule asks for. The
    spool is left for the caller to remove once the ledger stands.
    """
    with read_spool(spool_folder) as spool, whole_folder(destination) as folder:
        table = _with_rows(visit_table(spool.index), run)
        counts = _check_complete(spool.index, table, run)
        keys = _owners(run, ledgers, len(spool.steps))
        index_root = _write_samples(folder, run, counts, table, keys)
        place = row_place(folder, run.run_id, keys, table.samples)
        optimizer = functools.cache(lambda: optimizer_weights(spool))
        facts = {} if run.settling is None else run.settling.facts()
        settled = [spec for spec in ledgers if spec.per.startswith("settled")]
        written = {
            spec.name: write_rows(place, spec, spool, table, optimizer, run.captured is None, progress, facts)
            for spec in ledgers
            if spec not in settled
        }
        if settled:
            written |= _write_settled(folder, place, run, settled, spool, table, progress)
        for name, content in run.attachments.items():
            write_bytes(folder / name, content)
        if keys is not None and len(keys.steps):
            write_bytes(folder / STEP_KEYS, step_key_bytes(keys.steps))
        manifest = _manifest(folder, run, spool, counts, index_root, written)
        manifest.write(folder)
    return manifest


def _with_rows(table: VisitTable, run: Run) -> VisitTable:
    """The visits of the samples that are to have rows."""
    if run.captured is None:
        return table
    own = run.captured[table.samples]
    return VisitTable(table.samples[own], table.slots[own], table.steps[own])


def _owners(run: Run, ledgers: Sequence[LedgerSpec], steps: int) -> Owners | None:
    if run.keys is None:
        return None
    return owners(run.keys, run.run_id, run.sample_ids, steps if any(s.per == "step" for s in ledgers) else 0)


def _write_settled(
    folder: Path,
    place: RowPlace,
    run: Run,
    specs: Sequence[LedgerSpec],
    spool: SpoolReader,
    table: VisitTable,
    progress: Progress,
) -> dict[str, tuple[LedgerEntry, Vector | None]]:
    """The settled rows, and the base: what is left of the weights when every sample's row is added to them."""
    assert run.settling is not None
    steps, own = step_weights(specs[0], spool, lambda: optimizer_weights(spool)), _labels(run)[table.samples]
    writing = SettledWriting(spool, table, steps, run.settling, own, Weights(run.settling))
    settle = settle_here if run.spread is None else functools.partial(settle_elsewhere, run.spread)
    found = write_settled(folder, place, specs, writing, progress, settle)
    write_base(folder / BASE, run.final, spool.layout.parameters, found[specs[0].name][1])
    return {name: (entry, None) for name, (entry, _) in found.items()}


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


def _write_samples(
    folder: Path, run: Run, counts: npt.NDArray[np.int64], table: VisitTable, keys: Owners | None
) -> str:
    """Write what is known of the samples, with ids and as numbers alone; the root of the latter."""
    ledger_row = np.full(len(run.sample_ids), -1, np.int64)
    ledger_row[table.samples] = np.arange(len(table.samples))
    labels = _labels(run)
    frame = pd.DataFrame(_id_columns(run, keys) | {"label": labels, "visits": counts, "ledger_row": ledger_row})
    frame.to_parquet(folder / SAMPLES, index=False)
    numbers = np.full(len(labels), -1, np.int64) if keys is None else keys.samples
    return write_index(folder / ROWS, numbers, ledger_row, labels)


def _labels(run: Run) -> npt.NDArray[np.int64]:
    return np.full(len(run.sample_ids), -1, np.int64) if run.labels is None else run.labels


def _id_columns(run: Run, keys: Owners | None) -> dict[str, Any]:
    """Ids in clear, or the number of each sample's key and the ids encrypted with it."""
    if keys is None:
        return {"sample_id": list(run.sample_ids), "subject_id": list(run.subject_ids)}
    sealed = seal_ids(keys.store, keys.samples, run.sample_ids, run.subject_ids, run.run_id)
    return {"key": keys.samples, "ids": sealed}


def _manifest(
    folder: Path,
    run: Run,
    spool: SpoolReader,
    counts: npt.NDArray[np.int64],
    index_root: str,
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
        index_root=index_root,
        classes=_classes(_labels(run)),
        visits={
            "samples": len(counts),
            "expected": -1 if run.expected_visits is None else run.expected_visits,
            "smallest": int(counts.min()) if len(counts) else 0,
            "largest": int(counts.max(initial=0)),
            "steps": len(spool.steps),
        },
        entries={name: entry for name, (entry, _) in written.items()},
        attachments={name: hash_file(folder / name) for name in _further_files(folder, run)},
        residual={name: _relative(path + total, path) for name, total in totals.items()},
        store_id=run.keys.store_id if run.keys else None,
    )


def _classes(labels: npt.NDArray[np.int64]) -> dict[str, int]:
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    return {str(label): int(count) for label, count in zip(found, counts, strict=True)}


def _further_files(folder: Path, run: Run) -> list[str]:
    return sorted({*run.attachments, *(path.name for path in folder.glob("*.safetensors"))})


def _flat(spool: SpoolReader, weights: Mapping[str, Tensor]) -> Vector:
    parts = [weights[name].detach().double().flatten() for name, _ in spool.layout.parameters]
    return torch.cat(parts).cpu().numpy()


def _relative(rest: Vector, path: Vector) -> float:
    size = float(np.linalg.norm(path))
    return float(np.linalg.norm(rest)) / size if size else 0.0
