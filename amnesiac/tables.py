"""Arrays of bytes in Zarr v3, here or in an object store, and tables of narrow rows that are checked by the page.

zarr-python writes the metadata, tensorstore the rows; it reads those in an object store, `shards` those here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorstore
import zarr

from amnesiac.errors import StoreError
from amnesiac.page_digests import PAGE_ROWS, Bytes2D, PageDigests, RefusedRow, page_digests, rows_of
from amnesiac.shards import ShardedRows
from amnesiac.storage import Address, access

Index = npt.NDArray[np.int64]


def write_table(group: Path, name: str, rows: Bytes2D) -> str:
    """Write a `PagedTable` of rows `[n, width]`; its root. Replaces one of the same name; raises StoreError."""
    n, width = rows.shape
    pages, page = page_digests(rows), max(1, min(n, PAGE_ROWS))
    shape, shard = (n, width), -(-max(n, 1) // page) * page
    create_array(zarr.open_group(group, mode="a", zarr_format=3), name, shape, shard, {"pages": pages.digests}, page)
    if n:
        write_array(group, name, local_array(group / name), rows)
    return pages.root


class PagedTable:
    """Narrow rows in clear, checked a page at a time when they are first read, and kept in memory from then on.

    Raises ValueError, KeyError, TypeError or OSError where it can't be opened. Nothing that it reads is to be trusted
    unless `root` is what `write_table` returned.
    """

    def __init__(self, group: Path, name: str) -> None:
        self.name, self._rows = name, ShardedRows(group / name)
        self.shape = self._rows.shape
        attributes = json.loads((group / name / "zarr.json").read_text())["attributes"]
        self._pages = PageDigests(self.shape[0], attributes["pages"])
        self._held: Bytes2D = np.zeros(self.shape, np.uint8)
        self._checked = np.zeros(-(-self.shape[0] // PAGE_ROWS), np.bool_)

    def root(self) -> str:
        """Digest over the number of rows and the pages' digests."""
        return self._pages.root

    def read(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`.

        Raises RefusedRow for the first that lies in a page that was altered, ValueError or OSError where they can't be
        read at all.
        """
        pages = index // PAGE_ROWS
        wanted = np.unique(pages)
        for page in self._refused(wanted[~self._checked[wanted]]):
            first = page * PAGE_ROWS
            reason = f"rows {first} to {first + PAGE_ROWS - 1} of {self.name!r} don't match their digest"
            raise RefusedRow(int(np.flatnonzero(pages == page)[0]), reason)
        return self._held[index]

    def _refused(self, pages: Index) -> Iterator[int]:
        """Read pages; those that don't match their digests."""
        rows = rows_of(pages, self.shape[0])
        self._held[rows] = self._rows.read(rows)
        for page in pages.tolist():
            self._checked[page] = self._pages.matches(page, self._held[page * PAGE_ROWS : (page + 1) * PAGE_ROWS])
            if not self._checked[page]:
                yield page


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
        raise StoreError(
            f"{group}: rows of {name!r} can't be written: {error}. Free disk space or mend the permissions, then run "
            "the stage again: nothing was published"
        ) from error


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
