"""Rows and keys that can be looked for after they are gone: of each a keyed digest is kept, and none of its bytes.

A mark holds the length of a value, 20 bits of the hash of 8 of its bytes, and BLAKE2b of the whole value under a key.
For a key of 256 bits that reveals nothing. A row can't be computed from it either, but whoever has marks and key can
test a guess of the whole row, byte for byte. So values that are easily guessed (a black image) get no mark: those that
zlib packs into fewer than `LEAST_PACKED` bytes; they stand in other people's rows as well.
"""

import hashlib
import hmac
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_PACKED = 40
"""A random key of 32 bytes has 43."""
_WIDTH, _BITS, _MAX_WINDOWS = 8, 20, 64
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(64 - _BITS)


@dataclass(frozen=True)
class Mark:
    """What is kept of a value.

    number  which of the things looked for this is
    length  of the value, bytes;  at: where the window begins whose hash has the 20 bits `slot`
    digest  BLAKE2b of the value under the marks' key, 64 hex digits
    """

    number: int
    length: int
    at: int
    slot: int
    digest: str


def marks(values: Iterable[bytes], key: bytes, first: int = 0) -> list[Mark]:
    """Marks of values, numbered from `first`; what is easily guessed or shorter than 8 bytes is left out."""
    chosen = [value for value in values if len(value) >= _WIDTH and len(zlib.compress(value, 9)) >= LEAST_PACKED]
    return [_mark(number, value, key) for number, value in enumerate(chosen, first)]


class Marked:
    """Compiled marks; `find` may be called any number of times."""

    def __init__(self, known: Sequence[Mark], key: bytes) -> None:
        """Fill the table of slots."""
        self.marks, self._key = tuple(known), key
        self.reach = max((mark.length for mark in known), default=0)
        self._by_slot: dict[int, list[int]] = defaultdict(list)
        for k, mark in enumerate(self.marks):
            self._by_slot[mark.slot].append(k)
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[list(self._by_slot)] = True

    def find(self, buffer: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """(position in the buffer, position in `marks`) of every marked value that begins in [begin, end)."""
        for place, slot in self._candidates(buffer) if self.marks else ():
            for k in self._by_slot[slot]:
                at = place - self.marks[k].at
                if begin <= at < end and self._is_at(buffer, at, self.marks[k]):
                    yield at, k

    def _candidates(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Windows whose hash is a slot of a mark."""
        flat = np.frombuffer(buffer, np.uint8)
        for shift in range(min(_WIDTH, max(0, len(flat) - _WIDTH + 1))):
            count = (len(flat) - shift) // _WIDTH
            slots = _slots(flat[shift : shift + _WIDTH * count].view(np.uint64))
            rows = np.flatnonzero(self._table.take(slots))
            yield from zip((rows * _WIDTH + shift).tolist(), slots[rows].tolist(), strict=True)

    def _is_at(self, buffer: bytes, at: int, mark: Mark) -> bool:
        value = buffer[at : at + mark.length]
        return len(value) == mark.length and hmac.compare_digest(_digest(value, self._key), mark.digest)


def _mark(number: int, value: bytes, key: bytes) -> Mark:
    at = _telling(value)
    window = np.frombuffer(value[at : at + _WIDTH], np.uint64)
    return Mark(number, len(value), at, int(_slots(window)[0]), _digest(value, key))


def _telling(value: bytes) -> int:
    """Where a window begins that is rare in the value and has many different bytes."""
    places = range(0, len(value) - _WIDTH + 1, max(1, (len(value) - _WIDTH) // _MAX_WINDOWS))
    windows = {at: value[at : at + _WIDTH] for at in places}
    counts = Counter(windows.values())
    return min(windows, key=lambda at: (-len(set(windows[at])), counts[windows[at]]))


def _slots(windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Top bits of a product."""
    return ((windows * _FACTOR) >> _SHIFT).view(np.intp)


def _digest(value: bytes, key: bytes) -> str:
    return hashlib.blake2b(value, key=key, digest_size=32).hexdigest()
