"""A sealed ledger, opened for deletion: everything is checked before a number leaves this module."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from amnesiac.errors import DamagedRow, DamagedStore, IncompleteStore, SpecMismatch, UnknownSample
from amnesiac.hashing import hash_file
from amnesiac.ledger.manifest import Manifest, read_manifest
from amnesiac.ledger.reading import codec_of
from amnesiac.ledger.seal import SAMPLES, VISITS
from amnesiac.ledger.writing import ROWS
from amnesiac.rowstore import RowArray, RowReader

READ_BYTES = 64 << 20


@dataclass(frozen=True)
class SealedLedger:
    """Rows by sample or step.

    samples: a line a training sample: sample_id, subject_id, label (-1: unknown), visits, ledger_row (-1: not captured)
    """

    folder: Path
    manifest: Manifest
    samples: pd.DataFrame

    def total(self, name: str, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The exact sum of ledger rows: what is added to the weights, float64 by parameter name.

        Bit-identical for any order and grouping of `rows` (codecs.py). Raises DamagedRow naming the sample,
        SpecMismatch when the ledger `name` was not captured.
        """
        return self.by_parameter(self._sum(name, rows, 1)[0])

    def segment_totals(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.float64]:
        """The exact sums of rows with a part a segment, float64 `[segments, P]`; raises like `total`."""
        entry = self.manifest.entries.get(name)
        return self._sum(name, rows, entry.codec["segments"] if entry else 1)

    def attachment(self, name: str) -> bytes:
        """A further file of the ledger; raises DamagedStore when it is missing or altered."""
        path = self.folder / name
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != self.manifest.attachments.get(name):
            raise DamagedStore(f"{path} is missing or was altered. Restore the ledger with `dvc checkout`")
        return content

    def sample_rows(self, positions: Sequence[int]) -> list[int]:
        """Ledger rows of training samples; raises IncompleteStore naming samples that were not captured."""
        rows = self.samples["ledger_row"].to_numpy()[list(positions)]
        if (missing := np.flatnonzero(rows < 0)).size:
            ids = self.samples["sample_id"].to_numpy()[np.asarray(positions)[missing[:5]]]
            raise IncompleteStore(
                f"{missing.size} samples of the forget set have no contributions in {self.folder}, e.g. {list(ids)}: "
                "only captured samples can be subtracted. Set capture.classes to null and train again, or retrain "
                "without them"
            )
        return [int(row) for row in rows]

    def steps_of(self, positions: Sequence[int]) -> list[int]:
        """Optimiser steps whose mini-batch held any of the training samples."""
        visits = pd.read_parquet(self.folder / VISITS)
        return sorted(set(visits.loc[visits["sample"].isin(list(positions)), "step"].tolist()))

    def positions(self, sample_ids: Sequence[str]) -> list[int]:
        """Training positions of sample ids; raises UnknownSample listing those that are not in the run."""
        place = pd.Series(np.arange(len(self.samples)), index=self.samples["sample_id"])
        unknown = [s for s in sample_ids if s not in place.index]
        if unknown:
            raise UnknownSample(f"{len(unknown)} samples are not in {self.folder}: {unknown[:20]}")
        return [int(p) for p in place.loc[list(sample_ids)]]

    def row_bytes(self, name: str) -> int:
        """Bytes of a row."""
        return self.manifest.entries[name].row_bytes

    def check_rows(self, name: str) -> None:
        """Read and check every row of a ledger; raises DamagedRow at the first bad one."""
        reader = self._reader(name)
        step = max(1, READ_BYTES // reader.row_bytes)
        for start in range(0, reader.n_rows, step):
            self._read(reader, name, np.arange(start, min(start + step, reader.n_rows)))

    def _sum(self, name: str, rows: Sequence[int], parts: int) -> npt.NDArray[np.float64]:
        reader, codec = self._reader(name), codec_of(self.manifest.entries[name].codec, self.attachment)
        order, total = np.asarray(sorted(rows), np.int64), np.zeros(parts * self._numel())
        step = max(1, READ_BYTES // reader.row_bytes)
        for start in range(0, len(order), step):
            part = order[start : start + step]
            total += codec.total(self._read(reader, name, part), self._owners(name, part))
        return total.reshape(parts, -1)

    def _reader(self, name: str) -> RowReader:
        entry = self.manifest.entries.get(name)
        if entry is None:
            raise SpecMismatch(
                f"{self.folder} holds no {name!r} rows (only {sorted(self.manifest.entries)}): add the method to "
                "capture.methods in params.yaml and train again"
            )
        reader = RowReader(RowArray(self.folder / ROWS, name, self.manifest.run_id))
        if reader.root() != entry.root or (reader.n_rows, reader.row_bytes) != (entry.rows, entry.row_bytes):
            raise DamagedStore(
                f"{self.folder}: the checksums of {name!r} don't match the manifest. Restore it with `dvc checkout`"
            )
        return reader

    def _read(self, reader: RowReader, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        try:
            return reader.read(rows)
        except DamagedRow as error:
            raise DamagedRow(
                f"{error} (rows belong to {self._describe(name, rows)}). Restore it with `dvc checkout`"
            ) from error

    def _owners(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number each row's coordinates are drawn from: its sample's position (rows of steps share theirs)."""
        if name.startswith("updates"):
            return rows
        return np.flatnonzero(self.samples["ledger_row"].to_numpy() >= 0)[rows]

    def _describe(self, name: str, rows: npt.NDArray[np.int64]) -> str:
        if name.startswith("updates"):
            return f"steps {rows.min()} to {rows.max()}"
        ids = self.samples["sample_id"].to_numpy()[self._owners(name, rows)]
        return f"samples {ids[0]!r} to {ids[-1]!r}"

    def _numel(self) -> int:
        return sum(torch.Size(shape).numel() for _, shape in self.manifest.parameters)

    def by_parameter(self, total: npt.NDArray[np.float64]) -> dict[str, torch.Tensor]:
        """A vector over all parameters, float64 `[P]`, by name and in shape."""
        parts, start = {}, 0
        for name, shape in self.manifest.parameters:
            size = torch.Size(shape).numel()
            parts[name] = torch.from_numpy(total[start : start + size]).reshape(shape)
            start += size
        return parts


def open_ledger(folder: Path, *, run_id: str | None = None, weights_sha256: str | None = None) -> SealedLedger:
    """Open a sealed ledger for the run `run_id` and the trained weights with this hash, if given.

    Raises UnsealedStore, DamagedStore, SpecMismatch: an unfinished, altered or foreign ledger is never used.
    """
    manifest = read_manifest(folder)
    if run_id is not None and manifest.run_id != run_id:
        raise SpecMismatch(
            f"{folder} belongs to run {manifest.run_id}, not {run_id}: train again, or check out its model"
        )
    if weights_sha256 is not None and manifest.final_sha256 != weights_sha256:
        raise SpecMismatch(
            f"{folder} was captured for weights {manifest.final_sha256[:12]}, not {weights_sha256[:12]}: model and "
            "ledger are out of step; restore both with `dvc checkout`"
        )
    for name in (SAMPLES, VISITS):
        if not (folder / name).exists():
            raise DamagedStore(f"{folder}: {name} is missing. Restore the ledger with `dvc checkout`")
    if hash_file(folder / SAMPLES) + hash_file(folder / VISITS) != manifest.samples_sha256:
        raise DamagedStore(f"{folder}: {SAMPLES} or {VISITS} was altered. Restore the ledger with `dvc checkout`")
    return SealedLedger(folder, manifest, pd.read_parquet(folder / SAMPLES))
