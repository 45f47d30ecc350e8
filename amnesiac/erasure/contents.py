"""What a file holds, as streams of bytes: as it lies on disk, and unpacked where its first bytes name a format.

Looked into: gzip, bzip2, xz, zstd; members of zip files (NumPy's .npz too); text, binary and dictionary columns of
parquet files, nested ones included; the rows of SQLite databases (an id can be cut in two by a page). One level deep: a
gzip file in a zip file isn't unpacked. Not looked into: encrypted content, images (pixels of a PNG), tar members that
are compressed, Zarr chunks with a compressor (this project's have none).
"""

import bz2
import gzip
import lzma
import os
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 1 << 20
# What reading a file of these formats may raise when it is damaged, changes meanwhile or is locked
READING_ERRORS = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, lzma.LZMAError, zlib.error,
                  zipfile.BadZipFile, sqlite3.Error, pa.ArrowException)  # fmt: skip
Stream = Iterator[bytes]


def raw(path: Path) -> Stream:
    """The bytes as they lie on disk; a link is refused (OSError)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield from _blocks(file)


def inside(path: Path) -> Iterator[tuple[str, Stream]]:
    """The unpacked content of a known format: a name of the part, and its bytes. Nothing for other files.

    Raises one of `READING_ERRORS` for a damaged file, also while a stream is read.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for magic, unpack in _FORMATS.items():
        if head.startswith(magic):
            yield from unpack(path)


def _packed(opener: Callable[[Path], Any], name: str) -> Callable[[Path], Iterator[tuple[str, Stream]]]:
    def unpack(path: Path) -> Iterator[tuple[str, Stream]]:
        with opener(path) as file:
            yield name, _blocks(file)

    return unpack


def _zipped(path: Path) -> Iterator[tuple[str, Stream]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                with archive.open(entry) as file:
                    yield entry.filename, _blocks(file)


def _parquet(path: Path) -> Iterator[tuple[str, Stream]]:
    with pq.ParquetFile(path) as file:
        for name in (field.name for field in file.schema_arrow if _holds_text(field.type)):
            yield (
                name,
                (
                    b"\0".join(_texts(column)) + b"\0"
                    for batch in file.iter_batches(batch_size=4096, columns=[name])
                    for column in batch.columns
                ),
            )


def _holds_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    inner = [kind.field(k).type for k in range(kind.num_fields)]
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary,
             pa.types.is_fixed_size_binary)  # fmt: skip
    return any(test(kind) for test in tests) or any(map(_holds_text, inner))


def _texts(values: Any) -> Iterator[bytes]:
    """Every text or binary value of an Arrow array, however deep it is nested; each ends in nothing but itself."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        yield from _texts(values.dictionary)
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            yield from _texts(part)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts(values.flatten())
    elif pa.types.is_map(kind):
        yield from _texts(values.keys)
        yield from _texts(values.items)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        yield from (value for value in values.to_pylist() if value is not None)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from (value.encode() for value in values.to_pylist() if value is not None)


def _sqlite(path: Path) -> Iterator[tuple[str, Stream]]:
    """Rows of every table. Without a write-ahead log nothing is locked or written beside the file."""
    beside = path.with_name(path.name + "-wal").exists()
    address = f"file:{quote(str(path.absolute()))}?{'mode=ro' if beside else 'immutable=1'}"
    with closing(sqlite3.connect(address, uri=True)) as database:
        database.text_factory = bytes
        names = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            quoted = name.replace('"', '""')
            yield name, (b"\0".join(_cells(row)) + b"\0" for row in database.execute(f'SELECT * FROM "{quoted}"'))


def _cells(row: tuple[Any, ...]) -> Iterator[bytes]:
    for cell in row:
        if cell is not None:
            yield cell if isinstance(cell, bytes) else str(cell).encode()


def _blocks(file: IO[bytes]) -> Stream:
    while block := file.read(BLOCK):
        yield bytes(block)


def _zstd(path: Path) -> Any:
    return pa.input_stream(str(path), compression="zstd")


_FORMATS: dict[bytes, Callable[[Path], Iterator[tuple[str, Stream]]]] = {
    b"\x1f\x8b\x08": _packed(gzip.open, "gzip"),
    b"BZh": _packed(bz2.open, "bzip2"),
    b"\xfd7zXZ\0": _packed(lzma.open, "xz"),
    b"\x28\xb5\x2f\xfd": _packed(_zstd, "zstd"),
    b"PK\x03\x04": _zipped,
    b"PAR1": _parquet,
    b"SQLite format 3\0": _sqlite,
}
