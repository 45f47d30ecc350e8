"""Digests of the pages of a table, and one of those: a few rows are checked without reading all.

Knows nothing of how tables lie on disk, so that whoever only encrypts, or only names a refused row, needs no Zarr.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAGE_ROWS = 128
Bytes2D = npt.NDArray[np.uint8]


class RefusedRow(ValueError):
    """A row that doesn't match its tag, or its page's digest; `at` is its place among those that were asked for."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


@dataclass(frozen=True)
class PageDigests:
    """BLAKE2b-256 of every PAGE_ROWS rows, as hex digits."""

    rows: int
    digests: Sequence[str]

    @property
    def root(self) -> str:
        """Digest over the number of rows and the pages' digests."""
        return hashlib.blake2b(f"{self.rows}|{'|'.join(self.digests)}".encode(), digest_size=32).hexdigest()

    def matches(self, page: int, rows: Bytes2D) -> bool:
        """Whether these are the rows of this page."""
        return page < len(self.digests) and _digest(rows) == self.digests[page]


def page_digests(rows: Bytes2D) -> PageDigests:
    """Of a table `[n, width]`."""
    return PageDigests(len(rows), [_digest(rows[k : k + PAGE_ROWS]) for k in range(0, len(rows), PAGE_ROWS)])


def rows_of(pages: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """The rows that pages of a table of `n` rows hold, a page after the other."""
    rows = (pages[:, None] * PAGE_ROWS + np.arange(PAGE_ROWS)).ravel()
    return rows[rows < n]


def _digest(page: Bytes2D) -> str:
    return hashlib.blake2b(np.ascontiguousarray(page).data, digest_size=32).hexdigest()
