"""One writer at a time, by a lock that the kernel frees the moment its holder ends, `kill -9` included."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amnesiac.errors import AmnesiacError

LOCK_NAME = ".writer.lock"
_POLL_SECONDS = 0.1


class WriterBusy(AmnesiacError):
    """Another process holds the lock; the message names it."""


@contextmanager
def single_writer(folder: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold `folder`'s writer lock; wait up to `timeout` seconds for it, then raise WriterBusy with the holder's pid.

    Not re-entrant: a second call in the same process waits like any other. The lock file stays (removing it would
    let two processes lock two different files). Programs started by subprocess don't inherit the lock; forked
    children (multiprocessing's "fork") do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(descriptor, path, timeout)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            raise WriterBusy(_explain(descriptor, path, timeout))
        time.sleep(_POLL_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _explain(descriptor: int, path: Path, timeout: float) -> str:
    holder = os.pread(descriptor, 32, 0).decode().strip()
    who = "this process itself" if holder == str(os.getpid()) else f"process {holder or '(starting)'}"
    waited = f" (waited {timeout:g} s)" if timeout else ""
    return f"{path.parent} is being written by {who}, which holds {path}{waited}: wait until it has ended, or end it"
