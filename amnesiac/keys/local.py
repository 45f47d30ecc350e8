"""A key store in a folder of this machine.

    store.json       which store this is and its epoch: the one file whose replacement makes a change happen
    epoch-N.key      the epoch key, 256 bits
    epoch-N.table    all data keys and the hashes of their names, wrapped by the epoch key
    lock             held by the one process that changes something

Every change begins a new epoch: a new epoch key and the table wrapped by it are written aside and made durable, one
rename of store.json swaps them in, and the old epoch's files are overwritten, synced and removed. Whoever opens a
store that was killed in between finishes that: files that are not of the current epoch are wiped.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amnesiac.errors import DamagedStore, KeyDestroyed, KeyStoreMissing, StoreError
from amnesiac.keys import folder as files
from amnesiac.keys.store import KEY_BYTES, Destruction, Keys, Mask, Numbers
from amnesiac.keys.table import KeyTable, empty_table, unwrapped

FORMAT = 1
POINTER = "store.json"
_OURS = re.compile(rf"(epoch-\d+\.(key|table)|{re.escape(POINTER)})(\.partial)?")
_TRIES = 20


@dataclass(frozen=True)
class _State:
    """pointer: store.json as it was read;  table: its epoch's keys."""

    pointer: bytes
    store_id: str
    epoch: int
    table: KeyTable

    @property
    def files(self) -> tuple[str, ...]:
        return (POINTER, *epoch_files(self.epoch))


class LocalKeyStore:
    """Keys in a folder (0700, its files 0600) of this machine; a `KeyStore`.

    Nothing is opened before it is needed. A folder that isn't there raises KeyStoreMissing then, unless `create`.
    """

    def __init__(self, folder: Path | str, *, create: bool = False) -> None:
        self.folder, self._create = Path(folder), create
        self._state: _State | None = None

    @property
    def store_id(self) -> str:
        """16 hex digits, drawn when the store was made; raises KeyStoreMissing, DamagedStore, StoreError."""
        return self._current().store_id

    @property
    def epoch(self) -> int:
        """How often the store was changed."""
        return self._current().epoch

    def __len__(self) -> int:
        return len(self._current().table)

    def ensure(self, names: Sequence[str]) -> Numbers:
        """Numbers of these names' keys; those that don't exist are made, and durable when this returns."""
        found = self.find(names)
        if (found >= 0).all():
            return found
        with self._changing() as (state, commit):
            hashes = state.table.hashed(names)
            unknown = state.table.find(hashes) < 0
            new = list(dict.fromkeys(name for name, is_new in zip(hashes, unknown, strict=True) if is_new))
            if new:
                commit(state.table.extended(new))
            return self._current().table.find(hashes)

    def find(self, names: Sequence[str]) -> Numbers:
        """Numbers of these names' keys, -1 where there is none."""
        table = self._current().table
        return table.find(table.hashed(names))

    def keys(self, numbers: Numbers) -> Keys:
        """Keys `[len(numbers), 32]`; raises KeyDestroyed saying how many were destroyed."""
        table = self._current().table
        gone = int((~self._alive(table, numbers)).sum())
        if gone:
            raise KeyDestroyed(
                f"{gone} of {len(numbers)} keys asked for were destroyed in {self.folder}: what they encrypted is "
                "erased and can't be read again. Leave these samples out; a model that has to do without them goes on "
                "from the version that was published before the erasure"
            )
        return table.keys[numbers]

    def alive(self, numbers: Numbers) -> Mask:
        """Which of these keys there still are, `[len(numbers)]`."""
        return self._alive(self._current().table, numbers)

    def destroy(self, numbers: Numbers) -> Destruction:
        """Destroy keys and begin a new epoch; does nothing but count when all of them are gone already.

        Raises DamagedStore for a number that was never given out. A key that is lost because somebody kills this is
        impossible, and so is a destroyed one that comes back, but for a backup of the folder (docs/security.md).
        """
        with self._changing() as (state, commit):
            alive = self._alive(state.table, numbers)
            chosen = np.unique(np.asarray(numbers, np.int64)[alive])
            if len(chosen):
                commit(state.table.without(chosen))
            already = len(np.unique(numbers)) - len(chosen)
            return Destruction(len(chosen), already, self._current().epoch)

    def _alive(self, table: KeyTable, numbers: Numbers) -> Mask:
        index = np.asarray(numbers, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(table)):
            raise DamagedStore(
                f"{self.folder} has the keys 0 to {len(table) - 1}, not {index.min()} to {index.max()}: it is an older "
                "copy of the key store. Restore its newest backup"
            )
        return table.alive[index]

    def _current(self) -> _State:
        """The state on disk, read again when another process has changed it."""
        with self._opened() as folder:
            if self._state is None:
                self._state = self._read(folder)
                self._finish_interrupted(folder, self._state)
            elif files.read(folder, POINTER) != self._state.pointer:
                self._state = self._read(folder)
            return self._state

    def _finish_interrupted(self, folder: int, state: _State) -> None:
        """Wipe what a killed process left, unless a process is at work, whose files these are then."""
        if left_over(folder, state.files):
            with files.locked(folder, wait=False) as mine:
                if mine:
                    files.wipe(folder, left_over(folder, self._read(folder).files))

    @contextmanager
    def _changing(self) -> Iterator[tuple[_State, Callable[[KeyTable], None]]]:
        """Hold the lock; the state as it is now, and what puts another table in its place."""
        self._current()
        with self._opened() as folder, files.locked(folder, wait=True):
            state = self._state = self._read(folder)
            files.wipe(folder, left_over(folder, state.files))
            yield state, lambda table: self._swap(folder, state, table)

    def _swap(self, folder: int, old: _State, table: KeyTable) -> None:
        epoch, epoch_key = old.epoch + 1, secrets.token_bytes(KEY_BYTES)
        key_file, table_file = epoch_files(epoch)
        files.write(folder, key_file, epoch_key)
        files.write(folder, table_file, table.wrapped(epoch_key, _label(old.store_id, epoch)))
        pointer = _pointer(old.store_id, epoch)
        files.write(folder, POINTER, pointer)
        self._state = _State(pointer, old.store_id, epoch, table)
        files.wipe(folder, left_over(folder, self._state.files))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            if self._create and not (self.folder / POINTER).exists():
                self._make()
            with files.opened(self.folder) as folder:
                yield folder
        except FileNotFoundError as error:
            raise KeyStoreMissing(
                f"no key store at {self.folder} ({error.filename} is missing): what was encrypted with it can't be "
                "read. Restore its backup there, or set AMNESIAC_KEYS to the folder where it lies; if it is lost, run "
                "`amnesiac prepare --force` and `amnesiac train --force`"
            ) from error
        except OSError as error:
            raise StoreError(
                f"the key store {self.folder} can't be used: {error}. Free disk space or mend the permissions, then "
                "try again: no key was lost"
            ) from error

    def _make(self) -> None:
        """A store without keys, unless another process was quicker."""
        files.make(self.folder)
        with files.opened(self.folder) as folder, files.locked(folder, wait=True):
            if (self.folder / POINTER).exists():
                return
            files.wipe(folder, [name for name in left_over(folder, ()) if name == f"{POINTER}{files.PARTIAL}"])
            if lost := left_over(folder, ()):
                raise DamagedStore(f"{self.folder} holds {lost[0]}, but no {POINTER}: restore it from its backup")
            files.write(folder, POINTER, _pointer(secrets.token_hex(8), 0))

    def _read(self, folder: int) -> _State:
        """Raises DamagedStore. A reader that another process's change overtakes begins again."""
        for _ in range(_TRIES):
            pointer = files.read(folder, POINTER)
            try:
                return self._read_epoch(folder, pointer)
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                if files.read(folder, POINTER) == pointer:
                    raise DamagedStore(
                        f"{self.folder}: the key store can't be read: {error}. Restore it from its backup"
                    ) from error
        raise StoreError(f"{self.folder} is being changed all the time: try again")

    def _read_epoch(self, folder: int, pointer: bytes) -> _State:
        said: dict[str, Any] = json.loads(pointer)
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']}, this version reads {FORMAT}")
        store_id, epoch = str(said["store_id"]), int(said["epoch"])
        if epoch == 0:
            return _State(pointer, store_id, epoch, empty_table())
        key, table = (files.read(folder, name) for name in epoch_files(epoch))
        return _State(pointer, store_id, epoch, unwrapped(table, key, _label(store_id, epoch)))


def epoch_files(epoch: int) -> tuple[str, ...]:
    """Names of an epoch's key and table; none for a store that has no keys yet."""
    return (f"epoch-{epoch}.key", f"epoch-{epoch}.table") if epoch else ()


def left_over(folder: int, current: Sequence[str]) -> list[str]:
    """Files of the store that aren't of the current epoch: a change that was not finished, or not cleaned up."""
    found = os.listdir(folder)  # noqa: PTH208 - of the opened folder
    return sorted(name for name in found if _OURS.fullmatch(name) and name not in current)


def _pointer(store_id: str, epoch: int) -> bytes:
    return (json.dumps({"format": FORMAT, "store_id": store_id, "epoch": epoch}) + "\n").encode()


def _label(store_id: str, epoch: int) -> bytes:
    return f"amnesiac keys {FORMAT}|{store_id}|{epoch}".encode()
