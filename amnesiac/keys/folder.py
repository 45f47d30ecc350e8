"""A folder for its owner alone: files are 0600, no symbolic link is followed, what goes is overwritten first."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from amnesiac.errors import StoreError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERWRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK = "lock"
PARTIAL = ".partial"
_NEAR, _MOST = 1 << 13, 1 << 26  # one call of the system reads 2 GiB at most


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the folder; raises StoreError when others may look into it, FileNotFoundError when it isn't
    there.
    """
    folder = os.open(path, _FOLDER)
    try:
        _refuse_open_to_others(folder, path, "700")
        yield folder
    finally:
        os.close(folder)


def make(path: Path) -> None:
    """Create the folder, mode 0700, and its parents; leaves one that is there as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        path.mkdir(mode=0o700)
        _sync_parent(path)


def read(folder: int, name: str) -> bytes:
    """A file's content; raises StoreError when others may read it."""
    descriptor = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        _refuse_open_to_others(descriptor, Path(name), "600")
        return file.read()


def read_parts(folder: int, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file, (offset, length) each, ascending; shorter where the file ends.

    Raises StoreError as `read` does.
    """
    descriptor = os.open(name, _READ, dir_fd=folder)
    try:
        _refuse_open_to_others(descriptor, Path(name), "600")
        return [part for near in _joined(spans) for part in _parts(descriptor, near)]
    finally:
        os.close(descriptor)


def _joined(spans: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    """Stretches of spans, ascending, that lie so near each other that one call reads them sooner than several."""
    first = 0
    for k in range(1, len(spans) + 1):
        if k == len(spans) or spans[k][0] - sum(spans[k - 1]) > _NEAR or sum(spans[k]) - spans[first][0] > _MOST:
            yield spans[first:k]
            first = k


def _parts(descriptor: int, near: Sequence[tuple[int, int]]) -> list[bytes]:
    begin, end = near[0][0], sum(near[-1])
    content = os.pread(descriptor, end - begin, begin)
    return [content[start - begin : start - begin + length] for start, length in near]


def size(folder: int, name: str) -> int:
    """Bytes of a file."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size


def write(folder: int, name: str, content: bytes) -> None:
    """A file that appears whole and durable, in place of one of the same name, or not at all."""
    aside = f"{name}{PARTIAL}"
    descriptor = os.open(aside, _CREATE, 0o600, dir_fd=folder)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)  # noqa: PTH104 - relative to the opened folder
    os.fsync(folder)


def wipe(folder: int, names: list[str]) -> None:
    """Overwrite with random bytes, make that durable, remove."""
    for name in names:
        descriptor = os.open(name, _OVERWRITE, dir_fd=folder)
        try:
            _write_all(descriptor, secrets.token_bytes(os.fstat(descriptor).st_size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.unlink(name, dir_fd=folder)  # noqa: PTH108 - relative to the opened folder
    if names:
        os.fsync(folder)


@contextmanager
def locked(folder: int, *, wait: bool) -> Iterator[bool]:
    """Hold the folder's lock; with `wait` False, yield whether it could be had at once. Free after a kill -9."""
    descriptor = os.open(LOCK, _LOCK, 0o600, dir_fd=folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def _refuse_open_to_others(descriptor: int, path: Path, mode: str) -> None:
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
        raise StoreError(f"{path}: others than its owner may open it, and it holds keys: run `chmod {mode} {path}`")


def _sync_parent(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
