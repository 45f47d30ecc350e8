"""A key store in a folder of this machine.

    store.json       which store this is and its epoch: the one file whose replacement makes a change happen
    epoch-N.key      the epoch key, 256 bits
    epoch-N.table    all data keys and the hashes of their names, in pages, each wrapped by the epoch key (`pages`)
    lock             held by the one process that changes something

Every change begins a new epoch: a new epoch key and the table wrapped by it are written aside and made durable, one
rename of store.json swaps them in, and the old epoch's files are overwritten, synced and removed. Whoever opens a
store that was killed in between finishes that: files that are not of the current epoch are wiped. Reading takes the
pages of the keys asked for, so that its cost doesn't grow with the store; a change reads and writes all of them.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amnesiac.errors import DamagedStore, KeyDestroyed, KeyStoreMissing, StoreError
from amnesiac.keys import folder as files
from amnesiac.keys.pages import HEAD_BYTES, KeyPages, pages_in_memory, sealed_pages, wrapped
from amnesiac.keys.store import KEY_BYTES, Destruction, Keys, Mask, Numbers
from amnesiac.keys.table import KeyTable, empty_table, unwrapped_whole

FORMAT, WHOLE = 2, 1
POINTER = "store.json"
_OURS = re.compile(rf"(epoch-\d+\.(key|table)|{re.escape(POINTER)})(\.partial)?")
_TRIES = 20


@dataclass(frozen=True)
class _State:
    """pointer: store.json as it was read;  pages: its epoch's keys, of which some may have to be read yet."""

    pointer: bytes
    store_id: str
    epoch: int
    pages: KeyPages

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
        return len(self._current().pages)

    def ensure(self, names: Sequence[str]) -> Numbers:
        """Numbers of these names' keys; those that don't exist are made, and durable when this returns."""
        found = self.find(names)
        if (found >= 0).all():
            return found
        with self._changing() as (table, commit):
            hashes = table.hashed(names)
            unknown = table.find(hashes) < 0
            new = list(dict.fromkeys(name for name, is_new in zip(hashes, unknown, strict=True) if is_new))
            if new:
                table = table.extended(new)
                commit(table)
            return table.find(hashes)

    def find(self, names: Sequence[str]) -> Numbers:
        """Numbers of these names' keys, -1 where there is none."""
        table = self._held(None).table
        return table.find(table.hashed(names))

    def keys(self, numbers: Numbers) -> Keys:
        """Keys `[len(numbers), 32]`; raises KeyDestroyed saying how many were destroyed."""
        index = np.asarray(numbers, np.int64)
        pages = self._held(index)
        gone = int((~pages.alive(index)).sum())
        if gone:
            raise KeyDestroyed(
                f"{gone} of {len(numbers)} keys asked for were destroyed in {self.folder}: what they encrypted is "
                "erased and can't be read again. Leave these samples out; a model that has to do without them goes on "
                "from the version that was published before the erasure"
            )
        return pages.keys(index)

    def alive(self, numbers: Numbers) -> Mask:
        """Which of these keys there still are, `[len(numbers)]`."""
        index = np.asarray(numbers, np.int64)
        return self._held(index).alive(index)

    def destroy(self, numbers: Numbers) -> Destruction:
        """Destroy keys and begin a new epoch; does nothing but count when all of them are gone already.

        Raises DamagedStore for a number that was never given out. A key that is lost because somebody kills this is
        impossible, and so is a destroyed one that comes back, but for a backup of the folder (docs/security.md).
        """
        with self._changing() as (table, commit):
            index = self._known(len(table), np.asarray(numbers, np.int64))
            chosen = np.unique(index[table.alive[index]])
            if len(chosen):
                commit(table.without(chosen))
            already = len(np.unique(numbers)) - len(chosen)
            return Destruction(len(chosen), already, self._current().epoch)

    def _known(self, n: int, index: Numbers) -> Numbers:
        if len(index) and (index.min() < 0 or index.max() >= n):
            raise DamagedStore(
                f"{self.folder} has the keys 0 to {n - 1}, not {index.min()} to {index.max()}: it is an older "
                "copy of the key store. Restore its newest backup"
            )
        return index

    def _held(self, numbers: Numbers | None) -> KeyPages:
        """The current keys, the pages of these numbers (None: all) in memory; raises DamagedStore."""
        for _ in range(_TRIES):
            state = self._current()
            if numbers is not None:
                self._known(len(state.pages), numbers)
            with self._opened() as folder:
                if self._load(folder, state, numbers):
                    return state.pages
        raise self._busy()

    def _load(self, folder: int, state: _State, numbers: Numbers | None) -> bool:
        """Read what is missing; False where another process's change has overtaken it. Raises DamagedStore."""
        if not len(pages := state.pages.missing(numbers)):
            return True
        try:
            state.pages.load(pages, partial(files.read_parts, folder, epoch_files(state.epoch)[1]))
        except (ValueError, FileNotFoundError) as error:
            if files.read(folder, POINTER) == state.pointer:
                raise self._unreadable(error) from error
            return False
        return True

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
    def _changing(self) -> Iterator[tuple[KeyTable, Callable[[KeyTable], None]]]:
        """Hold the lock; all keys as they are now, and what puts another table in their place."""
        self._current()
        with self._opened() as folder, files.locked(folder, wait=True):
            state = self._state = self._read(folder)
            files.wipe(folder, left_over(folder, state.files))
            if not self._load(folder, state, None):
                raise self._busy()  # somebody changes it without the lock
            yield state.pages.table, lambda table: self._swap(folder, state, table)

    def _swap(self, folder: int, old: _State, table: KeyTable) -> None:
        epoch, epoch_key = old.epoch + 1, secrets.token_bytes(KEY_BYTES)
        key_file, table_file = epoch_files(epoch)
        files.write(folder, key_file, epoch_key)
        files.write(folder, table_file, b"".join(wrapped(table, epoch_key, _label(FORMAT, old.store_id, epoch))))
        pointer = _pointer(old.store_id, epoch)
        files.write(folder, POINTER, pointer)
        self._state = _State(pointer, old.store_id, epoch, pages_in_memory(table))
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
                return _read_epoch(folder, pointer)
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                if files.read(folder, POINTER) == pointer:
                    raise self._unreadable(error) from error
        raise self._busy()

    def _unreadable(self, error: Exception) -> DamagedStore:
        return DamagedStore(f"{self.folder}: the key store can't be read: {error}. Restore it from its backup")

    def _busy(self) -> StoreError:
        return StoreError(f"{self.folder} is being changed all the time: try again")


def _read_epoch(folder: int, pointer: bytes) -> _State:
    """A store's state without its pages; of format 1 with all keys, which lie in one block."""
    said: dict[str, Any] = json.loads(pointer)
    kind, store_id, epoch = said["format"], str(said["store_id"]), int(said["epoch"])
    if kind not in (FORMAT, WHOLE):
        raise ValueError(f"its format is {kind}, this version reads {WHOLE} and {FORMAT}")
    if epoch == 0:
        return _State(pointer, store_id, epoch, pages_in_memory(empty_table()))
    key_file, table_file = epoch_files(epoch)
    key, label = files.read(folder, key_file), _label(kind, store_id, epoch)
    if kind == WHOLE:
        table = unwrapped_whole(files.read(folder, table_file), key, label)
        return _State(pointer, store_id, epoch, pages_in_memory(table))
    (head,), size = files.read_parts(folder, table_file, [(0, HEAD_BYTES)]), files.size(folder, table_file)
    return _State(pointer, store_id, epoch, sealed_pages(key, label, head, size))


def epoch_files(epoch: int) -> tuple[str, ...]:
    """Names of an epoch's key and table; none for a store that has no keys yet."""
    return (f"epoch-{epoch}.key", f"epoch-{epoch}.table") if epoch else ()


def left_over(folder: int, current: Sequence[str]) -> list[str]:
    """Files of the store that aren't of the current epoch: a change that was not finished, or not cleaned up."""
    found = os.listdir(folder)  # noqa: PTH208 - of the opened folder
    return sorted(name for name in found if _OURS.fullmatch(name) and name not in current)


def _pointer(store_id: str, epoch: int) -> bytes:
    return (json.dumps({"format": FORMAT, "store_id": store_id, "epoch": epoch}) + "\n").encode()


def _label(kind: int, store_id: str, epoch: int) -> bytes:
    return f"amnesiac keys {kind}|{store_id}|{epoch}".encode()
