"""A sealed ledger, opened for deletion: everything is checked before a number leaves this module."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from amnesiac.errors import DamagedRow, DamagedStore, IncompleteStore, SpecMismatch, UnknownSample
from amnesiac.hashing import hash_file
from amnesiac.keys import Encrypted, KeyStore, check_store, unseal_ids
from amnesiac.ledger.index import KEY, LABEL, LEDGER_ROW, SampleIndex
from amnesiac.ledger.manifest import Manifest, read_manifest
from amnesiac.ledger.protection import ROWS, STEP_KEYS, step_numbers
from amnesiac.ledger.reading import codec_of
from amnesiac.ledger.seal import SAMPLES, VISITS
from amnesiac.rowstore import Checksum, RowArray, RowReader

READ_BYTES = 64 << 20


@dataclass(frozen=True)
class SealedLedger:
    """Rows by sample or step.

    index: what is known of each sample, in numbers;  keys: the store that it is encrypted with, None for one in clear
    """

    folder: Path
    manifest: Manifest
    index: SampleIndex
    keys: KeyStore | None = None

    def __len__(self) -> int:
        """Training samples."""
        return len(self.index)

    @cached_property
    def table(self) -> pd.DataFrame:
        """samples.parquet as it lies on disk; raises DamagedStore."""
        return self._parquet(SAMPLES, self.manifest.samples_sha256[:64])

    @cached_property
    def samples(self) -> pd.DataFrame:
        """A line a training sample: sample_id, subject_id, label (-1: unknown), visits, ledger_row (-1: not captured).

        The ids of an erased sample are both `erased-ROW`. Raises DamagedStore when an encrypted id was altered.
        """
        if self.keys is None:
            return self.table
        sealed, numbers = self.table["ids"].tolist(), self.table["key"].to_numpy(np.int64)
        samples, subjects = unseal_ids(self.folder / SAMPLES, self.keys, numbers, sealed, self.manifest.run_id)
        rest = self.table[["label", "visits", "ledger_row"]]
        return pd.DataFrame({"sample_id": samples, "subject_id": subjects}).join(rest)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each training sample, -1 where it isn't known."""
        return self.index.all(LABEL)

    def labels_of(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """Classes of the training samples at `positions`; reads no more of the ledger than it must."""
        return self.index.of(positions, LABEL)

    @property
    def erased(self) -> npt.NDArray[np.bool_]:
        """Training samples whose key was destroyed, `[n]`: their rows can't be read."""
        return ~self.keys.alive(self.key_numbers) if self.keys else np.zeros(len(self), bool)

    @property
    def captured(self) -> npt.NDArray[np.bool_]:
        """Training samples that have rows, `[n]`."""
        return self.index.all(LEDGER_ROW) >= 0

    @property
    def key_numbers(self) -> npt.NDArray[np.int64]:
        """Number of each training sample's key, `[n]`; -1 in a ledger in clear."""
        return self.index.all(KEY)

    @cached_property
    def step_keys(self) -> npt.NDArray[np.int64]:
        """Number of each optimiser step's key, `[steps]`; empty where no whole updates are kept, or in clear.

        When a sample is erased, the keys of `steps_of` its position have to be destroyed as well.
        """
        if self.keys is None or STEP_KEYS not in self.manifest.attachments:
            return np.zeros(0, np.int64)
        return step_numbers(self.attachment(STEP_KEYS))

    def total(self, name: str, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The exact sum of ledger rows: what is added to the weights, float64 by parameter name.

        Bit-identical for any order and grouping of `rows` (codecs.py). Raises DamagedRow naming the sample,
        SpecMismatch when the ledger `name` was not captured, KeyDestroyed when one of them was erased.
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
        rows = self.index.of(positions, LEDGER_ROW)
        if (missing := np.flatnonzero(rows < 0)).size:
            ids = self.samples["sample_id"].to_numpy()[np.asarray(positions)[missing[:5]]]
            raise IncompleteStore(
                f"{missing.size} samples of the forget set have no contributions in {self.folder}, e.g. {list(ids)}: "
                "only captured samples can be subtracted. Set capture.classes to null and train again, or retrain "
                "without them"
            )
        return [int(row) for row in rows]

    def steps_of(self, positions: Sequence[int], before: Sequence[int] = ()) -> list[int]:
        """Optimiser steps whose mini-batch held any of the training samples, but none of those `before`."""
        visits = self._parquet(VISITS, self.manifest.samples_sha256[64:])
        seen, undone = (set(visits.loc[visits["sample"].isin(list(p)), "step"].tolist()) for p in (positions, before))
        return sorted(seen - undone)

    def positions(self, sample_ids: Sequence[str]) -> list[int]:
        """Training positions of sample ids; raises UnknownSample listing those that are not in the run."""
        place = pd.Series(np.arange(len(self)), index=self.samples["sample_id"])
        unknown = [s for s in sample_ids if s not in place.index]
        if unknown:
            raise UnknownSample(f"{len(unknown)} samples are not in {self.folder}: {unknown[:20]}")
        return [int(p) for p in place.loc[list(sample_ids)]]

    def plain_rows(self, positions: Sequence[int]) -> list[bytes]:
        """The decrypted bytes of all kinds of rows of training samples, where they were captured: what a search for
        residues looks for. Raises DamagedRow, KeyDestroyed.
        """
        captured = self.index.of(positions, LEDGER_ROW)
        rows = np.sort(captured[captured >= 0])
        names = [name for name in self.manifest.entries if not name.startswith("updates")]
        return [row.tobytes() for name in names for row in self._read(self._reader(name), name, rows)]

    def row_bytes(self, name: str) -> int:
        """Bytes of a row."""
        return self.manifest.entries[name].row_bytes

    def check_rows(self, name: str) -> None:
        """Read and check every row of a ledger that isn't erased; raises DamagedRow at the first bad one."""
        reader = self._reader(name)
        rows, step = self._alive(name, reader.n_rows), max(1, READ_BYTES // reader.row_bytes)
        for start in range(0, len(rows), step):
            self._read(reader, name, rows[start : start + step])

    def _alive(self, name: str, n_rows: int) -> npt.NDArray[np.int64]:
        rows = np.arange(n_rows)
        return rows[self.keys.alive(self._key_numbers(name, rows))] if self.keys else rows

    def _key_numbers(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The data keys of rows."""
        return self.step_keys[rows] if name.startswith("updates") else self.index.of(self._owners(name, rows), KEY)

    @cached_property
    def _captured(self) -> npt.NDArray[np.int64]:
        """Positions of the samples that have rows, in the rows' order."""
        return np.flatnonzero(self.captured)

    def _parquet(self, name: str, sha256: str) -> pd.DataFrame:
        if hash_file(self.folder / name) != sha256:
            raise DamagedStore(f"{self.folder}: {name} was altered. Restore the ledger with `dvc checkout`")
        return pd.read_parquet(self.folder / name)

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
        seal = Encrypted(self.keys, partial(self._key_numbers, name)) if self.keys else Checksum()
        reader = RowReader(RowArray(self.folder / ROWS, name, self.manifest.run_id, seal))
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
        all_have_rows = name.startswith("updates") or self.manifest.entries[name].rows == len(self)
        return rows if all_have_rows else self._captured[rows]

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


def open_ledger(
    folder: Path, *, run_id: str | None = None, weights_sha256: str | None = None, keys: KeyStore | None = None
) -> SealedLedger:
    """Open a sealed ledger for the run `run_id` and the trained weights with this hash, if given.

    keys: the store that it was encrypted with; not looked at for a ledger in clear

    Raises UnsealedStore, DamagedStore, SpecMismatch: an unfinished, altered or foreign ledger is never used;
    KeyStoreMissing where it is encrypted and no store was given.
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
    keys = check_store(folder, manifest.store_id, keys)
    return SealedLedger(folder, manifest, SampleIndex(folder / ROWS, manifest.index_root), keys)
