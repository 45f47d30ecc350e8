"""Removing files and folders so that a killed purge goes on where it was, and its counts stay right.

What goes is listed first, durably (`add`); then it is removed (`run`, any number of times); the list is dropped
(`close`) once the caller has written the counts down. Overwriting is best effort: a solid-state disk, a copying or
journalling file system or a snapshot may keep the old blocks. Destroying the keys is what reaches those.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amnesiac.durable import sync_folder, write_bytes
from amnesiac.errors import DamagedStore, PurgeRefused, StoreError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Target:
    """A file or folder that goes, and the name under which it is counted, e.g. "superseded versions"."""

    place: str
    path: Path


@dataclass(frozen=True)
class PurgedPlace:
    """Plain files and links that went, their bytes, and how many had other names (hard links) that stay.

    Files with other names aren't overwritten: that would destroy what those names hold.
    """

    place: str
    files: int
    bytes: int
    linked: int
    overwritten: bool


@dataclass(frozen=True)
class _Entry:
    place: str
    path: str
    files: int
    bytes: int
    linked: int


class Purge:
    """A purge with its list in the file `plan` (paths and counts), allowed only below `roots`."""

    def __init__(self, plan: Path, roots: Sequence[Path]) -> None:
        """Name the list and the folders below which anything may be removed."""
        self.plan, self.roots = plan, tuple(roots)

    @property
    def unfinished(self) -> bool:
        """Whether there is a list: it was not yet removed, or nobody has noted the counts yet."""
        return self.plan.exists()

    def add(self, targets: Iterable[Target], *, overwrite: bool = False) -> None:
        """Count what is there and add it to the list, durably. What is listed already keeps its counts.

        A target that doesn't exist is passed over. Raises PurgeRefused for a path outside of the roots, a root itself,
        or one that is reached through a link; then nothing new is listed.
        """
        for left in self.plan.parent.glob(f".{self.plan.name}.*.partial"):  # of an `add` that was killed
            left.unlink()
        held, overwrite_held = self._read()
        listed = {entry.path for entry in held}
        new = [_counted(target) for target in targets if self._checked(target.path) and str(target.path) not in listed]
        content = {"overwrite": overwrite or overwrite_held, "entries": [asdict(entry) for entry in [*held, *new]]}
        write_bytes(self.plan, (json.dumps(content, indent=1) + "\n").encode())

    def run(self) -> tuple[PurgedPlace, ...]:
        """Remove all that is listed; by place, what was listed. May be run again after a kill or an error.

        Raises StoreError naming a path that can't be removed, PurgeRefused where a link has come into a path since.
        """
        entries, overwrite = self._read()
        for entry in entries:
            path = Path(entry.path)
            if self._checked(path):
                _remove(path, overwrite)
        places = dict.fromkeys(entry.place for entry in entries)
        return tuple(_total(place, [e for e in entries if e.place == place], overwrite) for place in places)

    def close(self) -> None:
        """Drop the list: the counts are noted elsewhere. Raises StoreError while something listed is still there."""
        left = [entry.path for entry in self._read()[0] if os.path.lexists(entry.path)]
        if left:
            raise StoreError(f"{len(left)} of the paths in {self.plan} are still there: call run first")
        self.plan.unlink(missing_ok=True)

    def _checked(self, path: Path) -> bool:
        """Whether there is something to remove; raises PurgeRefused where it may not be."""
        if not path.is_absolute() or ".." in path.parts:
            raise PurgeRefused(f"{path} isn't an absolute path without `..`: nothing was removed")
        inside = [root for root in map(Path.absolute, self.roots) if root in path.parents]
        if not inside:
            raise PurgeRefused(f"{path} doesn't lie below {', '.join(map(str, self.roots))}: nothing was removed")
        between = [part for part in path.parents if any(root in part.parents for root in inside)]
        links = [part for part in between if part.is_symlink()]
        if links:
            raise PurgeRefused(f"{path} is reached through the link {links[-1]}: name the folder itself")
        return os.path.lexists(path)

    def _read(self) -> tuple[list[_Entry], bool]:
        try:
            content = json.loads(self.plan.read_bytes())
            return [_Entry(**entry) for entry in content["entries"]], bool(content["overwrite"])
        except FileNotFoundError:
            return [], False
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedStore(
                f"{self.plan}: the list of an unfinished purge can't be read: remove the file and purge again"
            ) from error


def _counted(target: Target) -> _Entry:
    statuses = [status for status in _statuses(target.path) if not stat.S_ISDIR(status.st_mode)]
    linked = sum(status.st_nlink > 1 for status in statuses)
    size = sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))
    return _Entry(target.place, str(target.path), len(statuses), size, linked)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    status = path.lstat()
    yield status
    if stat.S_ISDIR(status.st_mode):
        for _, folders, files, descriptor in os.fwalk(path, onerror=_raise, follow_symlinks=False):
            for name in (*folders, *files):
                yield os.stat(name, dir_fd=descriptor, follow_symlinks=False)


def _total(place: str, entries: Sequence[_Entry], overwrite: bool) -> PurgedPlace:
    files, size, linked = (sum(getattr(e, name) for e in entries) for name in ("files", "bytes", "linked"))
    return PurgedPlace(place, files, size, linked, overwrite)


def _remove(path: Path, overwrite: bool) -> None:
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            _empty(path, overwrite)
            path.rmdir()
        else:
            _unlink(path.name, path.parent, overwrite)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"{error.filename or path} can't be removed ({error.strerror}): make it writable and run the purge again"
        ) from error


def _empty(folder: Path, overwrite: bool) -> None:
    """Remove everything below a folder, the deepest first; by descriptors, so that no link can be slipped in."""
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False, onerror=_raise, follow_symlinks=False):
        for name in files:
            _unlink_at(name, descriptor, overwrite)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=descriptor)
            else:
                os.rmdir(name, dir_fd=descriptor)


def _unlink(name: str, folder: Path, overwrite: bool) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _unlink_at(name, descriptor, overwrite)
    finally:
        os.close(descriptor)


def _unlink_at(name: str, folder: int, overwrite: bool) -> None:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if overwrite and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        _overwrite(name, folder, status.st_size)
    os.unlink(name, dir_fd=folder)


def _overwrite(name: str, folder: int, size: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.fchmod(reading, 0o600)  # DVC's cache is read-only
    finally:
        os.close(reading)
    writing = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=folder)
    with os.fdopen(writing, "wb", buffering=0) as file:
        for start in range(0, size, _BLOCK):
            file.write(bytes(min(_BLOCK, size - start)))
        os.fsync(file.fileno())


def _raise(error: OSError) -> Any:
    raise error
