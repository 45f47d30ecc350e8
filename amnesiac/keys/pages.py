"""A store's keys as they lie on disk, so that a few are read without the others: pages of PAGE_KEYS keys.

    head    nonce 12 | AES-256-GCM(secret 32, number of keys 8, keys a page 4)            | tag 16
    page k  nonce 12 | AES-256-GCM(alive 1 | keyed hash of the name 16 | key 32, each key) | tag 16

All by the epoch key, which wraps this one table and nothing else. Associated data is the label (format, store and
epoch) and which part it is, a page's with the number of keys: a part that was altered, swapped with another, or is of
another epoch, store or length of the table is refused. The last page holds what is left.
"""

import secrets
import struct
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from amnesiac.keys.store import KEY_BYTES, Keys, Mask, Numbers
from amnesiac.keys.table import ALTERED, NAME_BYTES, KeyTable
from amnesiac.page_digests import HeldPages, pages_of

PAGE_KEYS = 32
_NONCE, _TAG = 12, 16
_SEALED = _NONCE + _TAG
_HEAD = struct.Struct(f"<{KEY_BYTES}sQI")
HEAD_BYTES = _HEAD.size + _SEALED
WIDTH = 1 + NAME_BYTES + KEY_BYTES
Read = Callable[[list[tuple[int, int]]], list[bytes]]
"""Parts of the table's file, (offset, length) each."""


class KeyPages:
    """An epoch's keys. A page is decrypted when one of its keys is asked for, and kept in memory from then on."""

    def __init__(self, secret: bytes, held: HeldPages, cipher: AESGCM | None = None, label: bytes = b"") -> None:
        """secret: what names are hashed with;  cipher, label: of the file, None where all pages are held."""
        self.secret, self._held, self._cipher, self._label = secret, held, cipher, label

    def __len__(self) -> int:
        return self._held.rows

    def missing(self, numbers: Numbers | None) -> Numbers:
        """Pages that must be read before these keys, or all (None), can be given."""
        return self._held.missing(np.arange(len(self)) if numbers is None else numbers)

    def load(self, pages: Numbers, read: Read) -> None:
        """Read and decrypt pages; raises ValueError where one was altered, and holds none of them then."""
        assert self._cipher is not None
        n, size = len(self), self._held.page_rows
        starts = HEAD_BYTES + pages * (size * WIDTH + _SEALED)
        lengths = np.minimum(n - pages * size, size) * WIDTH + _SEALED
        parts = read(list(zip(starts.tolist(), lengths.tolist(), strict=True)))
        named = zip(pages.tolist(), parts, strict=True)
        clear = [_opened(self._cipher, part, _of_page(self._label, n, page)) for page, part in named]
        self._held.hold(pages, np.frombuffer(b"".join(clear), np.uint8).reshape(-1, WIDTH))

    def alive(self, numbers: Numbers) -> Mask:
        """Which of these keys there still are; their pages are held."""
        return self._held.of(numbers)[:, 0].astype(bool)

    def keys(self, numbers: Numbers) -> Keys:
        """Keys `[len(numbers), 32]`, zeros where they were destroyed; their pages are held."""
        return self._held.of(numbers)[:, 1 + NAME_BYTES :]

    @cached_property
    def table(self) -> KeyTable:
        """All keys; all pages are held."""
        rows = self._held.of(np.arange(len(self)))
        names, keys = np.split(rows[:, 1:], [NAME_BYTES], axis=1)
        return KeyTable(self.secret, rows[:, 0].astype(bool), np.ascontiguousarray(names), np.ascontiguousarray(keys))


def sealed_pages(epoch_key: bytes, label: bytes, head: bytes, size: int) -> KeyPages:
    """Of a file that begins with `head` (HEAD_BYTES) and has `size` bytes; raises ValueError where these don't fit."""
    cipher = AESGCM(epoch_key)
    secret, n, page = _HEAD.unpack(_opened(cipher, head, _of_head(label)))
    if size != HEAD_BYTES + n * WIDTH + pages_of(n, page) * _SEALED:
        raise ValueError(f"its table has {size} bytes, which {n} keys don't take: it was cut short or added to")
    return KeyPages(secret, HeldPages(n, page, WIDTH), cipher, label)


def pages_in_memory(table: KeyTable) -> KeyPages:
    """Of keys that are all known."""
    held = HeldPages(len(table), PAGE_KEYS, WIDTH)
    held.hold(np.arange(pages_of(len(table), PAGE_KEYS)), _columns(table))
    return KeyPages(table.secret, held)


def wrapped(table: KeyTable, epoch_key: bytes, label: bytes) -> Iterator[bytes]:
    """The parts of a file that holds all of the table; `label` says which format, store and epoch it is."""
    cipher, rows, n = AESGCM(epoch_key), _columns(table), len(table)
    yield _sealed(cipher, _HEAD.pack(table.secret, n, PAGE_KEYS), _of_head(label))
    for page in range(pages_of(n, PAGE_KEYS)):
        content = rows[page * PAGE_KEYS : (page + 1) * PAGE_KEYS]
        yield _sealed(cipher, content.tobytes(), _of_page(label, n, page))


def _columns(table: KeyTable) -> Keys:
    return np.concatenate([table.alive.astype(np.uint8)[:, None], table.names, table.keys], 1)


def _sealed(cipher: AESGCM, content: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + cipher.encrypt(nonce, content, place)


def _opened(cipher: AESGCM, sealed: bytes, place: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
    except (InvalidTag, ValueError) as error:
        raise ValueError(ALTERED) from error


def _of_head(label: bytes) -> bytes:
    return label + b"|head"


def _of_page(label: bytes, n: int, page: int) -> bytes:
    return label + f"|{n}|page {page}".encode()
