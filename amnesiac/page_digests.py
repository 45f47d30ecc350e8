"""Digests of the pages of a table, and those that are held: a few rows are checked without reading all.

Knows nothing of how tables lie on disk, so that whoever only encrypts, or only names a refused row, needs no Zarr.
A table's root is a hash tree of three levels: pages, groups of GROUP_PAGES pages, the root. Checking a page takes its
group's digests, not all of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAGE_ROWS = 32
GROUP_PAGES = 64
LISTED_PAGE_ROWS = 128
_DIGEST = 32
Bytes2D = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]


class RefusedRow(ValueError):
    """A row that doesn't match its tag, or its page's digest; `at` is its place among those that were asked for."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


@dataclass(frozen=True)
class ListedDigests:
    """BLAKE2b-256 of every 128 rows, as hex digits in one list: how tables were written before there were groups."""

    rows: int
    digests: Sequence[str]
    page_rows = LISTED_PAGE_ROWS

    @property
    def root(self) -> str:
        """Digest over the number of rows and the pages' digests."""
        return _hex(f"{self.rows}|{'|'.join(self.digests)}".encode())

    def of(self, pages: Index) -> list[bytes]:
        """Digests of pages; b"" for one that has none."""
        return [bytes.fromhex(self.digests[page]) if page < len(self.digests) else b"" for page in pages.tolist()]


@dataclass(frozen=True)
class GroupedDigests:
    """Digests of groups of pages, as hex digits; `read` takes (offset, length) of parts of the pages' own digests."""

    rows: int
    page_rows: int
    groups: Sequence[str]
    read: Callable[[Sequence[tuple[int, int]]], list[bytes]]

    @property
    def root(self) -> str:
        """Digest over the number of rows, the length of a page and the groups' digests."""
        return _hex(f"groups|{self.rows}|{self.page_rows}|{'|'.join(self.groups)}".encode())

    def of(self, pages: Index) -> list[bytes]:
        """Digests of pages; b"" for those of a group that was altered."""
        groups, count, size = (
            np.unique(pages // GROUP_PAGES),
            pages_of(self.rows, self.page_rows),
            GROUP_PAGES * _DIGEST,
        )
        spans = [(group * size, min(size, count * _DIGEST - group * size)) for group in groups.tolist()]
        read = zip(groups.tolist(), self.read(spans), strict=True)
        known = {group: content if self._matches(group, content) else b"" for group, content in read}
        places = ((page // GROUP_PAGES, page % GROUP_PAGES * _DIGEST) for page in pages.tolist())
        return [known[group][at : at + _DIGEST] for group, at in places]

    def _matches(self, group: int, content: bytes) -> bool:
        return group < len(self.groups) and _hex(content) == self.groups[group]


class HeldPages:
    """Rows `[n, width]` of a table of which only some pages are held, in no more memory than these need."""

    def __init__(self, rows: int, page_rows: int, width: int) -> None:
        self.rows, self.page_rows = rows, page_rows
        self._place = np.full(pages_of(rows, page_rows), -1, np.int64)
        self._held: Bytes2D = np.empty((0, width), np.uint8)
        self._used = 0

    def missing(self, index: Index) -> Index:
        """Pages of rows that aren't held yet, ascending."""
        pages = index // self.page_rows
        own: Index = np.unique(pages[self._place[pages] < 0])
        return own

    def hold(self, pages: Index, content: Bytes2D) -> None:
        """Take the rows of pages, one page after the other; only the table's last may be shorter than the others."""
        if not self._used and len(content) == len(pages) * self.page_rows:
            self._held = content  # most often it is all that will be asked for
        need = (self._used + len(pages)) * self.page_rows
        if need > len(self._held):
            held = np.empty((max(need, 2 * len(self._held)), self._held.shape[1]), np.uint8)
            held[: self._used * self.page_rows] = self._held[: self._used * self.page_rows]
            self._held = held
        start = self._used * self.page_rows
        if self._held is not content:
            self._held[start : start + len(content)] = content
        self._place[pages] = np.arange(self._used, self._used + len(pages))
        self._used += len(pages)

    def of(self, index: Index) -> Bytes2D:
        """Rows `[len(index), width]`, all of which are held."""
        places = self._place[index // self.page_rows] * self.page_rows + index % self.page_rows
        found: Bytes2D = self._held[places]
        return found


def page_digests(rows: Bytes2D) -> tuple[GroupedDigests, bytes]:
    """Of a table `[n, width]`: its groups' digests, and its pages' own, 32 bytes each."""
    pages = [page_digest(rows[k : k + PAGE_ROWS].tobytes()) for k in range(0, len(rows), PAGE_ROWS)]
    groups = [_hex(b"".join(pages[k : k + GROUP_PAGES])) for k in range(0, len(pages), GROUP_PAGES)]
    content = b"".join(pages)
    digests = GroupedDigests(len(rows), PAGE_ROWS, groups, lambda parts: [content[k : k + size] for k, size in parts])
    return digests, content


def page_digest(page: bytes | memoryview) -> bytes:
    """BLAKE2b-256 of a page's rows, one after another."""
    return hashlib.blake2b(page, digest_size=_DIGEST).digest()


def pages_of(rows: int, page_rows: int) -> int:
    """How many pages so many rows have."""
    return -(-rows // page_rows)


def rows_of(pages: Index, n: int, page_rows: int) -> Index:
    """The rows that pages of a table of `n` rows hold, a page after the other."""
    rows = (pages[:, None] * page_rows + np.arange(page_rows)).ravel()
    return rows[rows < n]


def _hex(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST).hexdigest()
