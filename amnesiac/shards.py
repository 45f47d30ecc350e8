"""Rows of Zarr v3 arrays, sharded or one plain chunk, read from the files of this machine.

A library's call a chunk costs 10 to 40 us, and a row is a chunk: what is read here is what the sharding codec says lies
in a file (Zarr v3, "sharding_indexed": chunks one after another, then each one's offset and length and a CRC-32C of
those), neighbouring rows at once, straight to where they are wanted. Nothing read here is to be trusted before its tag,
or its page's digest, was checked.
"""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

NEAR = 1 << 13
"""Bytes that are read in about the time that another call takes."""
Index = npt.NDArray[np.int64]
Bytes2D = npt.NDArray[np.uint8]
_ENTRY, _SUM = 16, 4
_READ = {
    "data_type": "uint8", "fill_value": 0, "files": "default", "codecs": ["sharding_indexed"], "inside": ["bytes"],
    "index": ["bytes", "crc32c"], "index_location": "end",
}  # fmt: skip
_FEW = 256  # an entry by itself takes about as long as so many of a whole index
_PAIR = struct.Struct("<qq")
_ABSENT = -1  # 2^64 - 1: a chunk that was never written, zeros


class ShardedRows:
    """An array uint8 `[n, width]` whose chunks are whole rows, uncompressed.

    Raises ValueError, KeyError, TypeError or OSError where it isn't one, or can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = json.loads((path / "zarr.json").read_text())
        n, width = found["shape"]
        self.shape = int(n), int(width)
        self._files = f"{path}/c"
        self._shard, self._chunk = _rows_of(found, self.shape[1])
        self._offsets: dict[int, Index] = {}

    def read(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`, zeros where a shard or chunk was never written, as Zarr has it.

        Raises ValueError where a shard was altered or cut short, OSError where it can't be read.
        """
        order = np.argsort(index, kind="stable")
        rows, found = index[order], np.zeros((len(index), self.shape[1]), np.uint8)
        if not len(rows):
            return found
        shards = rows // self._shard
        for start, stop in _cut(np.diff(shards) != 0):
            self._read_shard(int(shards[start]), rows[start:stop] % self._shard, found[start:stop])
        if (order[1:] > order[:-1]).all():
            return found
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return found[back]

    def _read_shard(self, shard: int, places: Index, out: Bytes2D) -> None:
        path, width = f"{self._files}/{shard}/0", self.shape[1]
        with _opened(path) as file:
            if file is None:
                return
            if shard not in self._offsets and len(places) * _FEW < self._shard // self._chunk:
                self._read_few(path, file, places.tolist(), out)
                return
            starts = self._starts(shard, path, file)[places // self._chunk]
            at = np.where(starts == _ABSENT, _ABSENT, starts + places % self._chunk * width)
            for start, stop in _cut((np.diff(at) != width) | (at[1:] == _ABSENT)):
                if at[start] == _ABSENT:
                    continue
                if os.preadv(file, [out[start:stop].data], int(at[start])) != (stop - start) * width:
                    raise ValueError(f"{path} is cut short")

    def _read_few(self, path: str, file: int, places: list[int], out: Bytes2D) -> None:
        """Rows by their own entries of the index, whose sum isn't looked at: what lies there has a tag."""
        chunk, width, size = self._chunk, self.shape[1], os.fstat(file).st_size
        begin = size - self._shard // chunk * _ENTRY - _SUM
        if begin < 0:
            raise ValueError(f"{path} is cut short")
        for place, row in zip(places, out, strict=True):
            start, length = _PAIR.unpack(os.pread(file, _ENTRY, begin + place // chunk * _ENTRY))
            if (start, length) == (_ABSENT, _ABSENT):
                continue
            if start < 0 or length != chunk * width:
                raise self._other_chunks(path)
            if start > size or os.preadv(file, [row.data], start + place % chunk * width) != width:
                raise ValueError(f"{path} is cut short")

    def _starts(self, shard: int, path: str, file: int) -> Index:
        """Where each chunk of a shard begins, `[chunks]`; read once."""
        if shard not in self._offsets:
            size, entries = os.fstat(file).st_size, self._shard // self._chunk
            length = entries * _ENTRY
            content = os.pread(file, length + _SUM, max(0, size - length - _SUM))
            if len(content) < length + _SUM or _crc(content[:length]) != content[length:]:
                raise ValueError(f"{path}: its index was altered, or it is cut short")
            found = np.frombuffer(content[:length], "<i8").reshape(entries, 2).astype(np.int64)
            if not ((found[:, 0] == _ABSENT) | (found[:, 1] == self._chunk * self.shape[1])).all():
                raise self._other_chunks(path)
            self._offsets[shard] = found[:, 0]
        return self._offsets[shard]

    def _other_chunks(self, path: str) -> ValueError:
        return ValueError(f"{path}: its chunks aren't {self._chunk} rows of {self.shape[1]} bytes")


class PlainRows:
    """An array uint8 `[n, width]` that is one chunk of plain bytes, so a file of rows one after another.

    Raises ValueError, KeyError, TypeError or OSError where it isn't one, or can't be opened.
    """

    def __init__(self, path: Path) -> None:
        found = json.loads((path / "zarr.json").read_text())
        n, width = found["shape"]
        self.path, self.shape = path / "c" / "0" / "0", (int(n), int(width))
        plain = [own["name"] for own in found["codecs"]] == ["bytes"] and found["data_type"] == "uint8"
        if not plain or found["chunk_grid"]["configuration"]["chunk_shape"] != [max(self.shape[0], 1), self.shape[1]]:
            raise ValueError("it isn't a single chunk of plain bytes")

    def read(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`, `index` ascending, none twice; raises ValueError where cut short, OSError."""
        found, width = np.empty((len(index), self.shape[1]), np.uint8), self.shape[1]
        if len(index):
            with self.path.open("rb", buffering=0) as file:
                for start, stop in _cut(np.diff(index) * width > NEAR):
                    self._read_stretch(file.fileno(), index[start:stop], found[start:stop])
        return found

    def _read_stretch(self, file: int, index: Index, out: Bytes2D) -> None:
        """Rows near each other, in one call; those one after another straight to where they are wanted."""
        width, first, count = self.shape[1], int(index[0]), int(index[-1] - index[0]) + 1
        whole = count == len(index)
        rows = out if whole else np.empty((count, width), np.uint8)
        if os.preadv(file, [rows.data], first * width) != count * width:
            raise ValueError(f"{self.path} is cut short")
        if not whole:
            np.take(rows, index - first, 0, out=out, mode="clip")


def _rows_of(found: dict[str, Any], width: int) -> tuple[int, int]:
    """Rows a shard and rows a chunk of an array's metadata; raises ValueError where it isn't what is read here."""
    shard, shard_width = found["chunk_grid"]["configuration"]["chunk_shape"]
    inside = found["codecs"][0]["configuration"]
    chunk, chunk_width = inside["chunk_shape"]
    seen = {
        "data_type": found["data_type"], "fill_value": found["fill_value"],
        "files": found["chunk_key_encoding"]["name"], "codecs": [own["name"] for own in found["codecs"]],
        "inside": [own["name"] for own in inside["codecs"]], "index": [own["name"] for own in inside["index_codecs"]],
        "index_location": inside["index_location"], "widths": (shard_width, chunk_width),
    }  # fmt: skip
    if seen != _READ | {"widths": (width, width)}:
        raise ValueError(f"its chunks aren't whole rows of plain bytes in indexed shards: {seen}")
    return int(shard), int(chunk)


@contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """A descriptor, None where there is no such file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _crc(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(_SUM, "little")


def _cut(changes: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of stretches without a change between neighbours."""
    return list(pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(changes) + 1]))
