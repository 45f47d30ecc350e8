"""Opening a prepared data set: everything read is checked against the record; nothing altered gets through."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from amnesiac.data.index import readable_index
from amnesiac.data.prepared import GROUP, INDEX, ROWS
from amnesiac.data.record import Record, read_record
from amnesiac.data.splits import SPLIT_NAMES
from amnesiac.errors import DamagedStore, DataError, SpecMismatch
from amnesiac.hashing import hash_file
from amnesiac.keys import Encrypted, KeyStore, check_store
from amnesiac.rowstore import Checksum, RowArray, RowReader

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """The samples of one split, in memory.

    inputs       float32 [n, c, h, w]: (x / 255 - mean) / std for uint8 images, (x - mean) / std for float images
    labels       int64 [n]
    sample_ids   n ids; the position in this split is what deletion requests resolve to
    subject_ids  n ids
    erased       bool [n]: samples whose key was destroyed. Their ids are placeholders and their inputs zeros, no data:
                 nothing may be trained or measured on them (`readable`); all False unless given
    """

    name: str
    inputs: torch.Tensor
    labels: torch.Tensor
    sample_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    erased: Mask = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.erased) != len(self.sample_ids):
            if len(self.erased):
                raise ValueError(f"{len(self.erased)} flags for {len(self.sample_ids)} samples")
            object.__setattr__(self, "erased", np.zeros(len(self.sample_ids), bool))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def readable(self) -> "Split":
        """The samples that aren't erased: what may be looked at."""
        return self.take(np.flatnonzero(~self.erased)) if self.erased.any() else self

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64] | torch.Tensor) -> "Split":
        """The samples at these positions, in this order; raises IndexError for one that doesn't exist."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        chosen = index.tolist()
        return Split(
            name=self.name,
            inputs=self.inputs[index],
            labels=self.labels[index],
            sample_ids=tuple(self.sample_ids[row] for row in chosen),
            subject_ids=tuple(self.subject_ids[row] for row in chosen),
            erased=self.erased[index.numpy()],
        )


@dataclass(frozen=True)
class PreparedDataset:
    """A data set as `prepare_dataset` wrote it.

    record   all fields of dataset.json
    table    index.parquet as it lies on disk;  keys: the store that it is encrypted with, None for data in clear
    """

    folder: Path
    record: Record
    table: pd.DataFrame = field(repr=False, compare=False)
    reader: RowReader = field(repr=False, compare=False)
    keys: KeyStore | None = field(repr=False, compare=False, default=None)

    @cached_property
    def index(self) -> pd.DataFrame:
        """DataFrame with row, sample_id, subject_id, label, class_name, split, in the order of the rows.

        The ids of an erased sample are both `erased-ROW`. Raises DamagedStore when an encrypted id was altered.
        """
        return readable_index(self.folder / INDEX, self.table, self.keys, self.record.content_hash)

    @property
    def key_numbers(self) -> Rows:
        """Each row's data key in `keys`, `[n]`; empty for data in clear."""
        return self.table["key"].to_numpy(np.int64) if self.keys else np.zeros(0, np.int64)

    @property
    def erased(self) -> Mask:
        """Rows whose key was destroyed, `[n]`."""
        return ~self.keys.alive(self.key_numbers) if self.keys else np.zeros(len(self.table), bool)

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything that training can see."""
        return self.record.content_hash

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is a position here."""
        return self.record.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        return self.record.image_shape

    def split(self, name: str) -> Split:
        """Read `train`, `validation` or `test`; raises DamagedRow naming the first image that was altered."""
        start = self._start(name)
        rows = np.arange(start, start + self.record.splits[name], dtype=np.int64)
        part, erased = self.index.iloc[start : start + len(rows)], self.erased[rows]
        return Split(
            name=name,
            inputs=self._inputs(rows, erased),
            labels=torch.tensor(part["label"].to_numpy(np.int64)),
            sample_ids=tuple(part["sample_id"]),
            subject_ids=tuple(part["subject_id"]),
            erased=erased,
        )

    def _start(self, name: str) -> int:
        if name not in SPLIT_NAMES:
            raise DataError(f"{self.folder}: no split {name!r}: choose one of {', '.join(SPLIT_NAMES)}")
        before = SPLIT_NAMES[: SPLIT_NAMES.index(name)]
        return sum(self.record.splits[other] for other in before)

    def _inputs(self, rows: Rows, erased: Mask) -> torch.Tensor:
        """Scaled inputs, zeros where they are erased."""
        if not erased.any():
            return self._read(rows)
        inputs = torch.zeros(len(rows), *self.image_shape)
        inputs[torch.from_numpy(~erased)] = self._read(rows[~erased])
        return inputs

    def _read(self, rows: Rows) -> torch.Tensor:
        stored = self.reader.read(rows).view(np.dtype(self.record.dtype).newbyteorder("<"))
        native = stored.reshape(len(rows), *self.image_shape).astype(self.record.dtype, copy=False)
        inputs = torch.from_numpy(native).to(torch.float32)
        if self.record.dtype == "uint8":
            inputs.div_(255)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.record.mean, self.record.std))
        return inputs.sub_(mean).div_(std)


def open_dataset(folder: Path, keys: KeyStore | None = None) -> PreparedDataset:
    """Open a prepared data set and check that its files belong together.

    keys: the store that it was encrypted with; not looked at for data in clear

    Raises UnsealedStore when it is unfinished, DamagedStore when record, index or images are missing or altered,
    SpecMismatch when they are whole but belong to different data sets or to another key store, KeyStoreMissing.
    Images and ids are checked when they are read.
    """
    record = read_record(folder)
    keys = check_store(folder, record.store_id, keys)
    table = _read_index(folder / INDEX, record)
    seal = Encrypted(keys, table["key"].to_numpy(np.int64)) if keys else Checksum()
    reader = RowReader(RowArray(folder / GROUP, ROWS, record.content_hash, seal))
    _check_rows(folder, reader, record)
    return PreparedDataset(folder, record, table, reader, keys)


def _read_index(path: Path, record: Record) -> pd.DataFrame:
    try:
        found = hash_file(path)
    except OSError as error:
        raise DamagedStore(f"{path}: can't be read ({error}): restore it, or prepare again") from error
    if found != record.index_hash:
        raise DamagedStore(f"{path}: was altered (its hash isn't the recorded one): restore it, or prepare again")
    return pd.read_parquet(path)


def _check_rows(folder: Path, reader: RowReader, record: Record) -> None:
    row_bytes = int(np.prod(record.image_shape)) * np.dtype(record.dtype).itemsize
    expected = (sum(record.splits.values()), row_bytes)
    if (reader.n_rows, reader.row_bytes) != expected:
        raise SpecMismatch(
            f"{folder / GROUP}: holds {reader.n_rows} images of {reader.row_bytes} bytes, the record says "
            f"{expected[0]} of {expected[1]}: it belongs to another data set, prepare again"
        )
    if reader.root() != record.rows_root:
        raise SpecMismatch(
            f"{folder / GROUP}: the images' checksums aren't the recorded ones: they were altered, or belong to "
            "another data set: prepare again"
        )
