"""Thousands of byte strings looked for at once in one pass over a stream, with NumPy.

Each needle is anchored at its most telling window of 8 bytes (4, where it is shorter). A table of a million bits says
for every position of the stream whether its window can be an anchor; the few that can are compared exactly.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.erasure.base64_text import decoded_around
from amnesiac.erasure.fingerprints import Marked
from amnesiac.erasure.needles import Needle

_BITS = 20
_MAX_WINDOWS = 64
_BLOCK = 1 << 20
_TELLING = 4
_FACTORS = {8: 0x9E3779B97F4A7C15, 4: 0x9E3779B1}


class Search:
    """Compiled needles; `find` may be called any number of times."""

    def __init__(self, needles: Sequence[Needle], marked: Marked | None = None) -> None:
        """Choose anchors and fill the tables: about 2 s for 100,000 needles. Each needle has 4 bytes or more.

        marked: what is known by its digest alone
        """
        self.needles, self.marked = tuple(needles), marked or Marked((), b"")
        self.reach = max([self.marked.reach, *map(_reach, needles)], default=0)
        long = [k for k, needle in enumerate(needles) if len(needle.data) >= 8]
        short = sorted(set(range(len(needles))) - set(long))
        self._tables = [_Table(self.needles, some, width) for some, width in ((long, 8), (short, 4)) if some]

    @property
    def things(self) -> tuple[tuple[int, str, int], ...]:
        """Number, form and length of every needle, then of every mark."""
        whole = ((needle.number, needle.form, len(needle.data)) for needle in self.needles)
        return (*whole, *((mark.number, "digest", mark.length) for mark in self.marked.marks))

    def find(self, blocks: Iterable[bytes]) -> Iterator[tuple[int, int]]:
        """Yield (offset in the stream, position in `things`) of every hit; blocks may cut a needle anywhere."""
        # A start is judged once `reach` bytes follow it, and kept until `reach` bytes are before the next one: so the
        # longer texts around it can be seen
        buffer, offset, begin = b"", 0, 0
        for block in _large(blocks):
            buffer += block
            end = len(buffer) - self.reach
            if end > begin:
                yield from ((offset + at, k) for at, k in self._judge(buffer, begin, end))
                cut = max(0, end - self.reach)
                buffer, offset, begin = buffer[cut:], offset + cut, end - cut
        yield from ((offset + at, k) for at, k in self._judge(buffer, begin, len(buffer)))

    def _judge(self, buffer: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
        for table in self._tables:
            for at, k in table.candidates(buffer):
                needle = self.needles[k]
                if begin <= at < end and buffer.startswith(needle.data, at) and _holds(buffer, at, needle):
                    yield at, k
        yield from ((at, len(self.needles) + k) for at, k in self.marked.find(buffer, begin, end))


class _Table:
    """Anchors of one width, in bytes."""

    def __init__(self, needles: Sequence[Needle], members: Sequence[int], width: int) -> None:
        self.width = width
        self.dtype = np.dtype(f"u{width}")
        self.factor, self.shift = self.dtype.type(_FACTORS[width]), self.dtype.type(8 * width - _BITS)
        chosen = _anchors([needles[k].data for k in members], width)
        self.by_anchor: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for k, at in zip(members, chosen, strict=True):
            window = needles[k].data[at : at + width]
            self.by_anchor[int(np.frombuffer(window, self.dtype)[0])].append((at, k))
        self.anchors = np.array(sorted(self.by_anchor), self.dtype)
        self.table = np.zeros(1 << _BITS, np.bool_)
        self.table[self._hashed(self.anchors)] = True

    def candidates(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Positions (they may be negative) at which a needle would begin, and which one."""
        flat = np.frombuffer(buffer, np.uint8)
        for shift in range(min(self.width, max(0, len(flat) - self.width + 1))):
            count = (len(flat) - shift) // self.width
            windows = flat[shift : shift + self.width * count].view(self.dtype)
            rows = np.flatnonzero(self.table.take(self._hashed(windows)))
            for row, value in self._exact(rows, windows[rows]):
                for at, k in self.by_anchor[value]:
                    yield row * self.width + shift - at, k

    def _exact(self, rows: npt.NDArray[np.intp], values: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
        slots = np.searchsorted(self.anchors, values)
        good = self.anchors[np.minimum(slots, len(self.anchors) - 1)] == values
        return zip(rows[good].tolist(), values[good].tolist(), strict=True)

    def _hashed(self, windows: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Slots of the table: the top bits of a product."""
        product = windows * self.factor
        product >>= self.shift
        slots: npt.NDArray[np.intp] = product.view(np.intp) if self.width == 8 else product.astype(np.intp)
        return slots


def _anchors(values: Sequence[bytes], width: int) -> list[int]:
    """Where each value's anchor begins: a window that isn't uniform, is rare among the values, and is varied."""
    places = [_places(len(value), width) for value in values]
    counts = Counter(v[at : at + width] for v, some in zip(values, places, strict=True) for at in some)

    def key(window: bytes) -> tuple[bool, int, int]:
        varied = len(set(window))
        return varied < _TELLING, counts[window], -varied

    return [min(some, key=lambda at: key(v[at : at + width])) for v, some in zip(values, places, strict=True)]  # noqa: B023


def _places(length: int, width: int) -> range:
    return range(0, length - width + 1, max(1, (length - width) // _MAX_WINDOWS))


def _large(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Small blocks (rows of a database) joined: each search costs about 0.1 ms however little there is to search."""
    held, size = [], 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _reach(needle: Needle) -> int:
    """How many bytes around its start must be seen to judge a hit."""
    longest = max([len(needle.data), *(len(text) for text, _ in needle.within)])
    return 2 * longest + 8 if needle.text else longest


def _holds(buffer: bytes, at: int, needle: Needle) -> bool:
    """Whether what looks like the needle is it."""
    if not needle.text:
        return not _explained(buffer, at, needle)
    before = max((inner for _, inner in needle.within), default=0)
    after = max([len(needle.text), *(len(text) - inner for text, inner in needle.within)])
    decoded, start = decoded_around(buffer, at, needle.alignment, before, after)
    return decoded.startswith(needle.text, start) and not _explained(decoded, start, needle)


def _explained(buffer: bytes, at: int, needle: Needle) -> bool:
    """Whether the hit is part of a longer text that may be here."""
    return any(at >= inner and buffer.startswith(text, at - inner) for text, inner in needle.within)
