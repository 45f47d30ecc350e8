"""An append-only file of lines: private, synced before an append returns, safe for several processes at once.

A line that ends in a newline counts. A last line without one was never acknowledged (its writer died): readers pass
over it, and the next append drops it.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from amnesiac.durable import sync_folder
from amnesiac.errors import StoreError


class DurableLines:
    """The lines of a file, mode 0600; a missing file has none. Folders that are missing are made with mode 0700."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened or created yet."""
        self.path = path

    def read(self) -> list[bytes]:
        """All whole lines, without their newlines; raises StoreError for a link or a file that others may read."""
        try:
            with self._locked(os.O_RDONLY) as descriptor:
                return _whole_lines(descriptor)
        except FileNotFoundError:
            return []

    def extend(self, new: Callable[[Sequence[bytes]], Sequence[bytes]]) -> int:
        """Append what `new` makes of the lines held, under one lock; the number of lines appended.

        When this returns, the lines survive a power cut. When the process is killed meanwhile, the first few of them
        may stand in the file. Raises StoreError when it can't be written; then nothing was appended.
        """
        with self._locked(os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
            held = _whole_lines(descriptor)
            added = new(held)
            if added:
                self._append(descriptor, sum(len(line) + 1 for line in held), b"".join(line + b"\n" for line in added))
        return len(added)

    @contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        """Open under a lock, shared to read, exclusive to write; it goes when the process dies."""
        descriptor = self._open(flags)
        try:
            self._refuse_open_to_others(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX if flags & os.O_CREAT else fcntl.LOCK_SH)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, flags: int) -> int:
        try:
            if flags & os.O_CREAT:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be opened ({error.strerror}): "
                "it must be a plain file, not a link, that you may read and write"
            ) from error

    def _refuse_open_to_others(self, descriptor: int) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise StoreError(f"{self.path} has mode {mode:04o}, so others may open it: run `chmod 600 {self.path}`")

    def _append(self, descriptor: int, end: int, data: bytes) -> None:
        """Write `data` after the first `end` bytes and fsync; on an error leave only those bytes."""
        os.ftruncate(descriptor, end)
        try:
            _write(descriptor, data)
            if end == 0:
                sync_folder(self.path.parent)
                sync_folder(self.path.parent.parent)
        except BaseException as error:
            os.ftruncate(descriptor, end)
            if isinstance(error, OSError):
                raise StoreError(f"{self.path} can't be written ({error.strerror}): nothing was added") from error
            raise


def _whole_lines(descriptor: int) -> list[bytes]:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read().split(b"\n")[:-1]


def _write(descriptor: int, data: bytes) -> None:
    """Write all and fsync. Unbuffered: a buffer would still be flushed after an error's truncation."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
