"""Opening a prepared data set: everything read is checked against the record; nothing altered gets through."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from amnesiac.data.prepared import GROUP, INDEX, ROWS
from amnesiac.data.record import Record, read_record
from amnesiac.data.splits import SPLIT_NAMES
from amnesiac.errors import DamagedStore, DataError, SpecMismatch
from amnesiac.hashing import hash_file
from amnesiac.rowstore import RowArray, RowReader


@dataclass(frozen=True)
class Split:
    """The samples of one split, in memory.

    inputs       float32 [n, c, h, w]: (x / 255 - mean) / std for uint8 images, (x - mean) / std for float images
    labels       int64 [n]
    sample_ids   n ids; the position in this split is what deletion requests resolve to
    subject_ids  n ids
    """

    name: str
    inputs: torch.Tensor
    labels: torch.Tensor
    sample_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sample_ids)

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
        )


@dataclass(frozen=True)
class PreparedDataset:
    """A data set as `prepare_dataset` wrote it.

    index   DataFrame with row, sample_id, subject_id, label, class_name, split, in the order of the rows
    record  all fields of dataset.json
    """

    folder: Path
    record: Record
    index: pd.DataFrame = field(repr=False, compare=False)
    reader: RowReader = field(repr=False, compare=False)

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
        part = self.index.iloc[start : start + len(rows)]
        return Split(
            name=name,
            inputs=self._inputs(rows),
            labels=torch.tensor(part["label"].to_numpy(np.int64)),
            sample_ids=tuple(part["sample_id"]),
            subject_ids=tuple(part["subject_id"]),
        )

    def _start(self, name: str) -> int:
        if name not in SPLIT_NAMES:
            raise DataError(f"{self.folder}: no split {name!r}: choose one of {', '.join(SPLIT_NAMES)}")
        before = SPLIT_NAMES[: SPLIT_NAMES.index(name)]
        return sum(self.record.splits[other] for other in before)

    def _inputs(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        stored = self.reader.read(rows).view(np.dtype(self.record.dtype).newbyteorder("<"))
        native = stored.reshape(len(rows), *self.image_shape).astype(self.record.dtype, copy=False)
        inputs = torch.from_numpy(native).to(torch.float32)
        if self.record.dtype == "uint8":
            inputs.div_(255)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.record.mean, self.record.std))
        return inputs.sub_(mean).div_(std)


def open_dataset(folder: Path) -> PreparedDataset:
    """Open a prepared data set and check that its files belong together.

    Raises UnsealedStore when it is unfinished, DamagedStore when record, index or images are missing or altered,
    SpecMismatch when they are whole but belong to different data sets. Images are checked when they are read.
    """
    record = read_record(folder)
    index = _read_index(folder / INDEX, record)
    reader = RowReader(RowArray(folder / GROUP, ROWS, record.content_hash))
    _check_rows(folder, reader, record)
    return PreparedDataset(folder, record, index, reader)


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
