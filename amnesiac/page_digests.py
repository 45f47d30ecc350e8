"""Digests of the pages of a table, and one of those: a few rows are checked without reading all."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAGE_ROWS = 128
Rows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PageDigests:
    """BLAKE2b-256 of every PAGE_ROWS rows, as hex digits."""

    rows: int
    digests: Sequence[str]

    @property
    def root(self) -> str:
        """Digest over the number of rows and the pages' digests."""
        return hashlib.blake2b(f"{self.rows}|{'|'.join(self.digests)}".encode(), digest_size=32).hexdigest()

    def matches(self, page: int, rows: Rows) -> bool:
        """Whether these are the rows of this page."""
        return page < len(self.digests) and _digest(rows) == self.digests[page]


def page_digests(rows: Rows) -> PageDigests:
    """Of a table `[n, width]`."""
    return PageDigests(len(rows), [_digest(rows[k : k + PAGE_ROWS]) for k in range(0, len(rows), PAGE_ROWS)])


def rows_of(pages: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """The rows that pages of a table of `n` rows hold, a page after the other."""
    rows = (pages[:, None] * PAGE_ROWS + np.arange(PAGE_ROWS)).ravel()
    return rows[rows < n]


def _digest(page: Rows) -> str:
    return hashlib.blake2b(np.ascontiguousarray(page).data, digest_size=32).hexdigest()
