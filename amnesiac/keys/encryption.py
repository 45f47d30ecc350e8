"""Encryption of rows and short texts, each with its owner's key: AES-256-GCM with a synthetic nonce.

    encryption key, nonce key = BLAKE2b-512(keyed with the data key)          so that no key has two uses
    nonce                     = BLAKE2b-96(keyed with the nonce key; context, SHA-256(content))
    stored, tag               = AES-256-GCM(encryption key, nonce, content, associated data: context)

The nonce is a function of key, place and content: the same row is written as the same bytes every time (a stage that
runs twice gives DVC the same hashes), while different content never meets the same nonce (but by a collision of 96
bits, which takes 2^48 rows of one key). That is the idea of AES-GCM-SIV (RFC 8452) with a hash that processors have
instructions for: 1.5 to 3 times as fast here. Reading doesn't need the hash at all: GCM's tag tells what was altered.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from amnesiac.keys.store import Keys, KeyStore, Numbers
from amnesiac.page_digests import Bytes2D, RefusedRow

NONCE_BYTES, GCM_TAG_BYTES = 12, 16
TEXT_BYTES = 96
_BLOCK_BYTES = 1 << 18
_PURPOSE = b"amnesiac rows 1"


class _Derived(NamedTuple):
    cipher: AESGCM
    nonce_key: bytes

    def nonce(self, content: object, context: bytes) -> bytes:
        digest = hashlib.sha256(content).digest()  # type: ignore[arg-type]
        return hashlib.blake2b(context + digest, digest_size=NONCE_BYTES, key=self.nonce_key).digest()


class Encrypted:
    """A `RowSeal` (amnesiac.rowstore): row k is encrypted with data key `numbers[k]` of the store, or `numbers([k])`.

    The context (owner, array, row) is associated data, so a row that was altered, swapped with another or brought from
    another run is refused. A tag is the nonce, 12 bytes, and GCM's tag, 16 bytes.
    """

    tag_bytes = NONCE_BYTES + GCM_TAG_BYTES

    def __init__(self, store: KeyStore, numbers: Numbers | Callable[[Numbers], Numbers]) -> None:
        self.store = store
        self._numbers = numbers if callable(numbers) else np.asarray(numbers, np.int64).__getitem__

    def seal(self, rows: Bytes2D, index: Numbers, contexts: Sequence[bytes]) -> tuple[Bytes2D, Bytes2D]:
        """Rows `[k, row_bytes]` that lie at `index`, encrypted, and their tags `[k, 28]`; raises KeyDestroyed."""
        n, width = rows.shape
        stored = np.empty((n, width + GCM_TAG_BYTES), np.uint8)
        nonces = []
        for key, row, context, out in zip(self._keys(index), rows, contexts, stored, strict=True):
            nonce = key.nonce(row, context)
            key.cipher.encrypt_into(nonce, row, context, out)
            nonces.append(nonce)
        drawn = np.frombuffer(b"".join(nonces), np.uint8).reshape(n, NONCE_BYTES)
        return stored[:, :width], np.concatenate([drawn, stored[:, width:]], 1)

    def unseal(self, stored: Bytes2D, tags: Bytes2D, index: Numbers, contexts: Sequence[bytes]) -> Bytes2D:
        """The rows; raises RefusedRow for the first that was altered or isn't in its place, KeyDestroyed."""
        clear = stored if stored.flags.writeable else np.empty_like(stored)
        keys, step = self._keys(index), max(1, _BLOCK_BYTES // max(stored.shape[1], 1))
        for start in range(0, len(stored), step):
            self._unseal_block(slice(start, start + step), stored, tags, keys, contexts, clear)
        return clear

    def _unseal_block(
        self, part: slice, stored: Bytes2D, tags: Bytes2D, keys: Iterator[_Derived], contexts: Sequence[bytes],
        clear: Bytes2D,
    ) -> None:  # fmt: skip
        """So few rows at a time that they stay in the processor's cache: GCM's tag has to lie behind each row."""
        sealed, nonces = np.concatenate([stored[part], tags[part, NONCE_BYTES:]], 1), tags[part, :NONCE_BYTES].tobytes()
        for k, (row, out, context) in enumerate(zip(sealed, clear[part], contexts[part], strict=True)):
            try:
                next(keys).cipher.decrypt_into(nonces[NONCE_BYTES * k : NONCE_BYTES * (k + 1)], row, context, out)
            except InvalidTag as error:
                raise RefusedRow(part.start + k, "its authentication tag differs") from error

    def _keys(self, index: Numbers) -> Iterator[_Derived]:
        numbers = self._numbers(index)
        return _derived(self.store.keys(numbers), numbers)


def seal_texts(store: KeyStore, numbers: Numbers, texts: Sequence[str], context: str) -> list[bytes]:
    """Encrypt short texts, the k-th with data key `numbers[k]`, for a column called `context`.

    Deterministic like rows, bound to column and position. Padded to a multiple of 96 bytes, so that lengths tell
    nothing of ids. Raises KeyDestroyed.
    """
    sealed = []
    for k, (key, text) in enumerate(zip(_derived(store.keys(numbers), numbers), texts, strict=True)):
        place, content = f"{context}|{k}".encode(), _padded(text.encode())
        nonce = key.nonce(content, place)
        sealed.append(nonce + key.cipher.encrypt(nonce, content, place))
    return sealed


def unseal_texts(store: KeyStore, numbers: Numbers, sealed: Sequence[bytes], context: str) -> list[str | None]:
    """The inverse; None where the key was destroyed. Raises RefusedRow for the first text that was altered."""
    alive = store.alive(numbers)
    derived = _derived(store.keys(numbers[alive]), numbers[alive])
    return [_unsealed(k, next(derived), sealed[k], context) if alive[k] else None for k in range(len(numbers))]


def _unsealed(k: int, key: _Derived, sealed: bytes, context: str) -> str:
    try:
        content = key.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"{context}|{k}".encode())
    except (InvalidTag, ValueError) as error:
        raise RefusedRow(k, "its authentication tag differs") from error
    return content.rstrip(b"\0")[:-1].decode()


def _padded(content: bytes) -> bytes:
    """Content, a byte 0x80, zeros: so that content of any kind can be told from its padding."""
    marked = content + b"\x80"
    return marked + bytes(-len(marked) % TEXT_BYTES)


def _derived(keys: Keys, numbers: Numbers) -> Iterator[_Derived]:
    """What each data key is used by; derived once where rows of one owner follow each other."""
    last, found = -1, None
    for number, key in zip(np.asarray(numbers).tolist(), keys, strict=True):
        if number != last or found is None:
            both = hashlib.blake2b(key=key, person=_PURPOSE).digest()
            last, found = number, _Derived(AESGCM(both[:32]), both[32:])
        yield found
