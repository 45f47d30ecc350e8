"""Arrays of bytes in Zarr v3, here or in an object store, and tables of narrow rows that are checked by the page.

zarr-python writes the metadata, tensorstore the rows; it reads those in an object store, `shards` those here.

A table `NAME` is one plain chunk, `NAME/digests` (not of Zarr) its pages' digests, and the attributes hold the length
of a page and the digests of groups of pages, so that opening a table hardly grows with it. Tables from before lie in
shards of pages of 128 rows and list all pages' digests in the attributes: they are read, and no longer written.
"""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorstore
import zarr

from amnesiac.errors import StoreError
from amnesiac.page_digests import (
    Bytes2D,
    GroupedDigests,
    HeldPages,
    ListedDigests,
    RefusedRow,
    page_digest,
    page_digests,
    rows_of,
)
from amnesiac.shards import PlainRows, ShardedRows
from amnesiac.storage import Address, access

DIGESTS = "digests"
Index = npt.NDArray[np.int64]


def write_table(group: Path, name: str, rows: Bytes2D) -> str:
    """Write a `PagedTable` of rows `[n, width]`; its root. Replaces one of the same name; raises StoreError.

    One chunk of plain bytes, so that a page is a stretch of a file; its pages' digests lie in a file beside.
    """
    n, width = rows.shape
    digests, content = page_digests(rows)
    attributes: dict[str, Any] = {"page_rows": digests.page_rows, "groups": digests.groups}
    zarr.open_group(group, mode="a", zarr_format=3).create_array(
        name, shape=(n, width), chunks=(max(n, 1), width), dtype="uint8", compressors=None, fill_value=0,
        attributes=attributes, overwrite=True,
    )  # fmt: skip
    try:
        (group / name / "c" / "0").mkdir(parents=True)
        (group / name / "c" / "0" / "0").write_bytes(np.ascontiguousarray(rows).data)
        (group / name / DIGESTS).write_bytes(content)
    except OSError as error:
        raise _not_written(group, name, error) from error
    return digests.root


class PagedTable:
    """Narrow rows in clear, checked a page at a time when they are first read, and kept in memory from then on.

    Raises ValueError, KeyError, TypeError or OSError where it can't be opened. Nothing that it reads is to be trusted
    unless `root` is what `write_table` returned.
    """

    def __init__(self, group: Path, name: str) -> None:
        self.name, path = name, group / name
        said = json.loads((path / "zarr.json").read_text())["attributes"]
        listed = "pages" in said
        self._rows = ShardedRows(path) if listed else PlainRows(path)
        self.shape = self._rows.shape
        self._digests = (
            ListedDigests(self.shape[0], said["pages"])
            if listed
            else GroupedDigests(self.shape[0], max(1, int(said["page_rows"])), said["groups"], partial(_parts, path))
        )
        self._held = HeldPages(self.shape[0], self._digests.page_rows, self.shape[1])

    def root(self) -> str:
        """Digest over the number of rows and the digests of pages, or of their groups."""
        return self._digests.root

    def read(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`.

        Raises RefusedRow for the first that lies in a page that was altered, ValueError or OSError where they can't be
        read at all.
        """
        pages = self._held.missing(index)
        if len(pages) and (bad := self._hold(pages)) is not None:
            first, size = bad * self._digests.page_rows, self._digests.page_rows
            reason = f"rows {first} to {first + size - 1} of {self.name!r} don't match their digest"
            raise RefusedRow(int(np.flatnonzero(index // size == bad)[0]), reason)
        return self._held.of(index)

    def _hold(self, pages: Index) -> int | None:
        """Read pages and hold them; the first that doesn't match its digest, none is held then."""
        size, n = self._digests.page_rows, self.shape[0]
        rows, stride = self._rows.read(rows_of(pages, n, size)), size * self.shape[1]
        content = np.ascontiguousarray(rows).data.cast("B")
        for k, (page, digest) in enumerate(zip(pages.tolist(), self._digests.of(pages), strict=True)):
            if page_digest(content[k * stride : (k + 1) * stride]) != digest:
                return int(page)
        self._held.hold(pages, rows)
        return None


def _parts(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Of the pages' digests, (offset, length) each; shorter where the file ends."""
    with (path / DIGESTS).open("rb", buffering=0) as file:
        return [os.pread(file.fileno(), length, start) for start, length in spans]


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, int], shard: int, attributes: dict[str, Any], chunk: int = 1
) -> None:
    """An array of bytes `shape`: `chunk` rows are read at once, `shard` rows lie in a file."""
    group.create_array(
        name,
        shape=shape,
        chunks=(chunk, shape[1]),
        shards=(shard, shape[1]),
        dtype="uint8",
        compressors=None,
        fill_value=0,
        attributes=attributes,
        overwrite=True,
    )


def write_array(group: Path, name: str, target: Any, values: Bytes2D) -> None:
    """Write bytes to what `local_array` gave, or a part of it; raises StoreError."""
    try:
        target.write(values).result()
    except (ValueError, OSError) as error:
        raise _not_written(group, name, error) from error


def _not_written(group: Path, name: str, error: Exception) -> StoreError:
    return StoreError(
        f"{group}: rows of {name!r} can't be written: {error}. Free disk space or mend the permissions, then run "
        "the stage again: nothing was published"
    )


class RemoteRows:
    """What `ShardedRows` is, in an object store; raises as it does."""

    def __init__(self, address: Address) -> None:
        self._rows = _open(_remote(address))
        self.shape = int(self._rows.shape[0]), int(self._rows.shape[1])

    def read(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`."""
        return np.asarray(self._rows[index].read().result())


def open_rows(path: Path, elsewhere: Address | None) -> ShardedRows | RemoteRows:
    """The array at `path`, or of the same name below an address; raises ValueError, KeyError, TypeError, OSError."""
    return RemoteRows(elsewhere.below(path.name)) if elsewhere else ShardedRows(path)


def local_array(path: Path) -> Any:
    """The array at `path`, to write; raises ValueError, OSError."""
    return _open({"driver": "file", "path": f"{path}/"})


def _open(store: dict[str, Any]) -> Any:
    """The array in one of tensorstore's stores; raises ValueError, OSError."""
    return tensorstore.open({"driver": "zarr3", "kvstore": store}, open=True).result()


def _remote(address: Address) -> dict[str, Any]:
    """The same files in a bucket: tensorstore asks for the touched chunks alone, joins neighbours, and tries again."""
    how = access()
    store = {"driver": "s3", "bucket": address.bucket, "path": f"{address.prefix}/", "aws_region": how.region}
    credentials = {"type": "environment" if how.fixed else "default"}
    retries = {"max_retries": 10, "initial_delay": "100ms", "max_delay": "10s"}
    where = {"endpoint": how.endpoint} if how.endpoint else {}
    return store | where | {"aws_credentials": credentials, "context": {"s3_request_retries": retries}}
