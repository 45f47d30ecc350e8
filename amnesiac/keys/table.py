"""All keys of a store in memory: what names are looked up in, and what a change makes another one of."""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from amnesiac.keys.store import KEY_BYTES, Keys, Mask, Numbers

NAME_BYTES = 16
ALTERED = "it was altered, or belongs to another store or epoch"
_NONCE_BYTES = 12
_HEAD = KEY_BYTES


@dataclass(frozen=True)
class KeyTable:
    """secret: what names are hashed with;  alive: which keys there are, `[n]`
    names:  keyed hashes `[n, 16]`;  keys: `[n, 32]`; both zeros where a key was destroyed
    """

    secret: bytes
    alive: Mask
    names: Keys
    keys: Keys

    def __len__(self) -> int:
        return len(self.alive)

    def find(self, hashes: Sequence[bytes]) -> Numbers:
        """Numbers of hashed names, -1 where there is none."""
        return np.array([self._number_of.get(name, -1) for name in hashes], np.int64)

    def hashed(self, names: Sequence[str]) -> list[bytes]:
        """HMAC-SHA-256 of names with this store's secret, the first 16 bytes."""
        return [hmac.digest(self.secret, name.encode(), "sha256")[:NAME_BYTES] for name in names]

    def extended(self, hashes: Sequence[bytes]) -> "KeyTable":
        """With a new key for each of these names."""
        made, n = secrets.token_bytes(KEY_BYTES * len(hashes)), len(hashes)
        return KeyTable(
            self.secret,
            np.concatenate([self.alive, np.ones(n, bool)]),
            np.concatenate([self.names, _rows(b"".join(hashes), NAME_BYTES)]),
            np.concatenate([self.keys, _rows(made, KEY_BYTES)]),
        )

    def without(self, numbers: Numbers) -> "KeyTable":
        """With the keys and names of these numbers gone."""
        alive = self.alive.copy()
        alive[numbers] = False
        return KeyTable(self.secret, alive, self.names * alive[:, None], self.keys * alive[:, None])

    @cached_property
    def _number_of(self) -> dict[bytes, int]:
        return {self.names[number].tobytes(): number for number in np.flatnonzero(self.alive).tolist()}


def empty_table() -> KeyTable:
    """No keys yet, a new secret."""
    none = np.zeros(0, bool)
    return KeyTable(secrets.token_bytes(KEY_BYTES), none, np.zeros((0, NAME_BYTES), np.uint8), _rows(b"", KEY_BYTES))


def unwrapped_whole(content: bytes, epoch_key: bytes, label: bytes) -> KeyTable:
    """A table of format 1: all of it one block, AES-256-GCM by the epoch key; such stores are read, not written.

    Raises ValueError when the file was altered or belongs elsewhere.
    """
    try:
        clear = AESGCM(epoch_key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], label)
    except (InvalidTag, ValueError) as error:
        raise ValueError(ALTERED) from error
    n = (len(clear) - _HEAD) // (1 + NAME_BYTES + KEY_BYTES)
    names = _HEAD + n
    keys = names + n * NAME_BYTES
    alive = np.frombuffer(clear[_HEAD:names], np.uint8).astype(bool)
    return KeyTable(clear[:_HEAD], alive, _rows(clear[names:keys], NAME_BYTES), _rows(clear[keys:], KEY_BYTES))


def _rows(content: bytes, width: int) -> Keys:
    return np.frombuffer(content, np.uint8).reshape(-1, width)
