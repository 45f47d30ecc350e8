"""Fixed-length rows in sharded Zarr v3 arrays, each with its own checksum, or encrypted.

The only module that knows how rows lie on disk (images of the prepared data, deltas of the ledger).
One row array `NAME` in a Zarr group is two Zarr arrays:

    NAME       uint8 [n_rows, row_bytes]   one chunk a row, many rows a shard, uncompressed
    NAME.tags  uint8 [n_rows, 16 or 28]    what `RowSeal.seal` returned for each row: a checksum, or nonce and tag

Tags are a `PagedTable`: digests of its pages lie beside it, a digest over those (the root) in the owner's record.

Zarr reads a missing chunk as zeros and doesn't notice bit flips, so every row is checked against its tag, and
the tag binds the row to its array and position: a row that was altered, lost, swapped or taken from another run
raises `DamagedRow`. zarr-python writes the metadata, tensorstore the rows; they are read straight from their files
(`shards`), or by tensorstore where they were moved to an object store (`move_rows`).
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from amnesiac.elsewhere import read_elsewhere
from amnesiac.errors import DamagedRow, DamagedStore, StoreError
from amnesiac.page_digests import Bytes2D, RefusedRow
from amnesiac.tables import PagedTable, create_array, local_array, open_rows, write_array, write_table

Index = npt.NDArray[np.int64]
SHARD_BYTES = 16 << 20
_UNREACHED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED", "ABORTED")


class RowSeal(Protocol):
    """How rows are protected on disk, a block at a time: `Checksum`, or `amnesiac.keys.Encrypted`.

    index: the rows' numbers in their array, `[k]`;  contexts: what each is bound to, 32 bytes
    """

    @property
    def tag_bytes(self) -> int:
        """Length of a row's tag."""
        ...

    def seal(self, rows: Bytes2D, index: Index, contexts: Sequence[bytes]) -> tuple[Bytes2D, Bytes2D]:
        """What is stored of rows `[k, row_bytes]`, of the same shape, and their tags `[k, tag_bytes]`."""
        ...

    def unseal(self, stored: Bytes2D, tags: Bytes2D, index: Index, contexts: Sequence[bytes]) -> Bytes2D:
        """The rows, perhaps in the place of `stored`; raises RefusedRow for the first that doesn't match its tag."""
        ...


class Checksum:
    """Rows in clear, BLAKE2b-128 keyed by run, array and position."""

    tag_bytes = 16

    def seal(self, rows: Bytes2D, index: Index, contexts: Sequence[bytes]) -> tuple[Bytes2D, Bytes2D]:
        """The rows unchanged and their checksums."""
        sums = b"".join(self._of(row, context) for row, context in zip(rows, contexts, strict=True))
        return rows, np.frombuffer(sums, np.uint8).reshape(len(rows), self.tag_bytes)

    def unseal(self, stored: Bytes2D, tags: Bytes2D, index: Index, contexts: Sequence[bytes]) -> Bytes2D:
        """The rows unchanged; raises RefusedRow where the checksum differs."""
        for k, (row, tag, context) in enumerate(zip(stored, tags, contexts, strict=True)):
            if self._of(row, context) != tag.tobytes():
                raise RefusedRow(k, "checksum differs")
        return stored

    def _of(self, row: npt.NDArray[np.uint8], context: bytes) -> bytes:
        return hashlib.blake2b(row.data, digest_size=self.tag_bytes, key=context).digest()


@dataclass(frozen=True)
class RowArray:
    """Where a row array lies and what it is bound to (`owner`: run id or data-set id)."""

    group: Path
    name: str
    owner: str
    seal: RowSeal = Checksum()

    def contexts(self, index: Index) -> list[bytes]:
        """What each row's tag is bound to: owner, array and row, hashed to 32 bytes."""
        place = f"{self.owner}|{self.name}"
        return [hashlib.blake2b(f"{place}|{row}".encode(), digest_size=32).digest() for row in index.tolist()]


class RowWriter:
    """Writes a row array front to back, a whole shard at a time."""

    def __init__(self, array: RowArray, n_rows: int, row_bytes: int, attributes: dict[str, Any] | None = None) -> None:
        """Create the arrays of `n_rows` rows (0 is fine) of `row_bytes` bytes; replaces arrays of the same name.

        Raises ValueError when rows have no bytes.
        """
        if row_bytes < 1:
            raise ValueError(
                f"{array.name}: a row needs at least one byte, not {row_bytes}: nothing would be kept of it"
            )
        self.array, self.n_rows, self.row_bytes, self.written = array, n_rows, row_bytes, 0
        shard = shard_rows(n_rows, row_bytes)
        group = zarr.open_group(array.group, mode="a", zarr_format=3)
        create_array(group, array.name, (n_rows, row_bytes), shard, attributes or {})
        self._rows = local_array(array.group / array.name)
        self._tags: Bytes2D = np.zeros((n_rows, array.seal.tag_bytes), np.uint8)
        self._shard = shard
        self._pending: list[Bytes2D] = []
        self._n_pending = 0

    def append(self, rows: Bytes2D) -> None:
        """Append rows `[k, row_bytes]`; they reach the disk when a shard is full, so they are copied.

        Raises ValueError when they aren't bytes, have another length, or are more than were announced.
        """
        fits = rows.ndim == 2 and rows.shape[1] == self.row_bytes and rows.dtype == np.uint8
        if not fits or self.written + self._n_pending + len(rows) > self.n_rows:
            raise ValueError(
                f"{self.array.name}: {rows.dtype} {rows.shape} doesn't fit uint8 [{self.n_rows}, {self.row_bytes}], of "
                f"which {self.written + self._n_pending} rows are there already"
            )
        self._pending.append(rows.copy())
        self._n_pending += len(rows)
        if self._n_pending >= self._shard:
            self._flush(self._n_pending // self._shard * self._shard)

    def close(self) -> str:
        """Write what is left and the tags; return the root: a digest over all tags.

        Raises ValueError when fewer rows than announced were appended.
        """
        self._flush(self._n_pending)
        if self.written != self.n_rows:
            raise ValueError(f"{self.array.name}: {self.written} of {self.n_rows} rows were written")
        return write_table(self.array.group, f"{self.array.name}.tags", self._tags)

    def _flush(self, count: int) -> None:
        if count == 0:
            return
        block = np.concatenate(self._pending) if len(self._pending) > 1 else self._pending[0]
        now, later = block[:count], block[count:]
        index = np.arange(self.written, self.written + count)
        contexts = self.array.contexts(index)
        stored, self._tags[index] = self.array.seal.seal(np.ascontiguousarray(now), index, contexts)
        write_array(self.array.group, self.array.name, self._rows[self.written : self.written + count], stored)
        self.written += count
        self._pending, self._n_pending = ([later.copy()] if len(later) else []), len(later)


class RowReader:
    """Reads checked rows of a finished row array."""

    def __init__(self, array: RowArray) -> None:
        """Open the arrays; raises DamagedStore when they are missing, unreadable or protected in another way."""
        self.array = array
        try:
            self._rows = open_rows(array.group / array.name, read_elsewhere(array.group))
            self._tags = PagedTable(array.group, f"{array.name}.tags")
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise _unreached(array, error) or DamagedStore(
                f"{array.group}: row array {array.name!r} can't be opened: {error}"
            ) from error
        self.n_rows, self.row_bytes = self._rows.shape
        if self._tags.shape != (self.n_rows, array.seal.tag_bytes):
            raise DamagedStore(
                f"{array.group}: the tags of {array.name!r} are {self._tags.shape}, expected "
                f"{(self.n_rows, array.seal.tag_bytes)}: they were altered, or the rows are protected in another way "
                "than their record says"
            )

    def root(self) -> str:
        """Digest over the tags' pages, to compare with what `RowWriter.close` returned."""
        return self._tags.root()

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Bytes2D:
        """Rows `[len(rows), row_bytes]` in the order asked for.

        Raises DamagedRow naming the first bad one, IndexError for a row that the array doesn't have, and, when they are
        encrypted, KeyDestroyed.
        """
        index = np.asarray(rows, np.int64)
        if len(index) == 0:
            return np.empty((0, self.row_bytes), np.uint8)
        if index.min() < 0 or index.max() >= self.n_rows:
            raise IndexError(f"{self.array.name} has rows 0 to {self.n_rows - 1}, not {index.min()} to {index.max()}")
        try:
            stored = self._rows.read(index)
            tags = self._tags.read(index)
        except RefusedRow as error:
            raise self._damaged(index, error) from error
        except (ValueError, OSError) as error:
            raise _unreached(self.array, error) or DamagedRow(
                f"{self.array.group}: rows of {self.array.name!r} can't be read: {error}"
            ) from error
        try:
            return self.array.seal.unseal(np.ascontiguousarray(stored), tags, index, self.array.contexts(index))
        except RefusedRow as error:
            raise self._damaged(index, error) from error

    def _damaged(self, index: Index, error: RefusedRow) -> DamagedRow:
        return DamagedRow(f"{self.array.group}: row {index[error.at]} of {self.array.name!r} is damaged: {error}")


def shard_rows(n_rows: int, row_bytes: int) -> int:
    """Rows a shard: about 16 MiB, so that files stay few and a rewrite stays cheap."""
    return max(1, min(max(n_rows, 1), SHARD_BYTES // max(row_bytes, 1)))


def read_attributes(group: Path, name: str) -> dict[str, Any]:
    """The Zarr attributes of a row array."""
    return dict(zarr.open_group(group, mode="r")[name].attrs)


def remove_group(group: Path) -> None:
    """Delete a whole Zarr group."""
    shutil.rmtree(group, ignore_errors=True)


def _unreached(array: RowArray, error: Exception) -> StoreError | None:
    """A server that doesn't answer, or refuses, is no damage: nothing has to be restored then."""
    elsewhere = read_elsewhere(array.group)
    if elsewhere is None or not any(sign in str(error) for sign in _UNREACHED):
        return None
    return StoreError(
        f"{elsewhere.url}: rows of {array.name!r} can't be reached: {error}. Look at network, bucket, credentials and "
        "rights, then run the command again"
    )
