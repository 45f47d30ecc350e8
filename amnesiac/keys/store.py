"""What a key store promises, whoever keeps the keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from amnesiac.errors import KeyStoreMissing, SpecMismatch

KEY_BYTES = 32
Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Destruction:
    """What `destroy` did.

    destroyed: keys that were alive before;  already: keys that had been destroyed earlier;  epoch: the one that began
    """

    destroyed: int
    already: int
    epoch: int


class KeyStore(Protocol):
    """Data keys of 256 bits, each with a number that it keeps for ever: 0, 1, 2, ...

    A key belongs to a name (`sample_name`, `step_name`), of which the store keeps no more than a keyed hash.
    """

    @property
    def store_id(self) -> str:
        """Tells this store from any other: what was encrypted with its keys records it."""
        ...

    @property
    def epoch(self) -> int:
        """Grows with every change."""
        ...

    def ensure(self, names: Sequence[str]) -> Numbers:
        """Numbers `[len(names)]` of these names' keys; keys that don't exist are made, durably, before it returns."""
        ...

    def find(self, names: Sequence[str]) -> Numbers:
        """The same, -1 where a name has no key (it never had one, or the key was destroyed); nothing is made."""
        ...

    def keys(self, numbers: Numbers) -> Keys:
        """Keys uint8 `[len(numbers), 32]`; raises KeyDestroyed when any of them was destroyed."""
        ...

    def alive(self, numbers: Numbers) -> Mask:
        """Which of these keys there still are, `[len(numbers)]`."""
        ...

    def destroy(self, numbers: Numbers) -> Destruction:
        """Destroy keys: when it returns they are gone, and what they encrypted can't be read by anyone.

        May be repeated; a call that was killed has destroyed all of them or none, and others' keys are never lost.
        """
        ...


def sample_name(sample_id: str) -> str:
    """The name that a sample's key goes by. Not its subject's: a request may name some of a person's samples."""
    return f"sample:{sample_id}"


def step_name(run_id: str, step: int) -> str:
    """The name that the key of an optimiser step's whole update goes by."""
    return f"step:{run_id}:{step}"


def check_store(what: object, recorded: str | None, keys: KeyStore | None) -> KeyStore | None:
    """The key store that `what` needs: `keys`, or None when it isn't encrypted (`recorded` is None).

    Raises KeyStoreMissing when it is encrypted and no store was given, SpecMismatch when `keys` is another one.
    """
    if recorded is None:
        return None
    if keys is None:
        raise KeyStoreMissing(
            f"{what} is encrypted with the keys of store {recorded}, and no key store was given: pass "
            "keys=LocalKeyStore(FOLDER)"
        )
    if keys.store_id != recorded:
        raise SpecMismatch(
            f"{what} is encrypted with the keys of store {recorded}, but store {keys.store_id} was given: restore that "
            "store's backup, point AMNESIAC_KEYS to it, or prepare and train again"
        )
    return keys
