"""The search for residues: are erased ids, plaintext rows or keys still lying somewhere?

Every byte of every plain file is looked at, so deleted rows in free pages of a database and in its -wal are found;
names of files too. Links aren't followed, pipes and sockets aren't opened. What couldn't be read is reported: a
scan with gaps never looks like a clean one.
"""

import os
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amnesiac.erasure.contents import READING_ERRORS, inside, raw
from amnesiac.erasure.fingerprints import Marked
from amnesiac.erasure.needles import Needle
from amnesiac.erasure.search import Search
from amnesiac.progress import Progress, silent

_SQLITE_SIBLINGS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Hit:
    """The first place in a file where a needle stands.

    offset  in bytes, from the start of the file, or of the unpacked `part`; 0 for the file's name
    part    "" for the file as it lies on disk, "file name", or the unpacked part (a zip member, column or table)
    needle  the number of what was found; the id itself is in no field (in `file` it is blanked out)
    """

    file: str
    part: str
    offset: int
    needle: int
    form: str


@dataclass(frozen=True)
class Gap:
    """Something that couldn't be searched, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class ScanReport:
    """What was searched, and what was found.

    places    as given; `absent` are those that don't exist
    bytes     as on disk; `unpacked` are those of archives, columns and tables, searched as well
    things    how many different things were looked for (numbers of needles)
    """

    places: tuple[str, ...]
    absent: tuple[str, ...]
    files: int
    bytes: int
    unpacked: int
    things: int
    hits: tuple[Hit, ...]
    gaps: tuple[Gap, ...]

    @property
    def clean(self) -> bool:
        """Nothing was found, and nothing was left out."""
        return not self.hits and not self.gaps


def scan(
    needles: Sequence[Needle], places: Iterable[Path], progress: Progress = silent, marked: Marked | None = None
) -> ScanReport:
    """Search folders, files and databases. A database as a place brings its -wal, -shm and -journal along.

    marked: what is known by its digest alone (`fingerprints`); its numbers go on from those of the needles
    """
    places = tuple(places)
    work = _Scan(Search(needles, marked))
    files = work.listed(places)
    work.names([path for path, _ in files])
    total = sum(size for _, size in files)
    for path, size in files:
        work.file(path)
        work.bytes += size
        progress("scan", work.bytes, total)
    return ScanReport(
        places=tuple(map(str, places)),
        absent=tuple(str(place) for place in places if not os.path.lexists(place)),
        files=len(files),
        bytes=work.bytes,
        unpacked=work.unpacked,
        things=len({number for number, _, _ in work.things}),
        hits=tuple(work.hits),
        gaps=tuple(work.gaps),
    )


class _Scan:
    def __init__(self, search: Search) -> None:
        self.search, self.things = search, search.things
        self.bytes = self.unpacked = 0
        self.hits: list[Hit] = []
        self.gaps: list[Gap] = []
        self._shown: dict[Path, str] = {}

    def listed(self, places: Iterable[Path]) -> list[tuple[Path, int]]:
        """Every plain file below the places, once, with its size."""
        found: dict[Path, int] = {}
        for place in places:
            if place.is_symlink():
                self._gap(place, "is a link: name what it points to")
                continue
            for path in _with_siblings(place):
                found.update(self._below(path))
        return sorted(found.items())

    def names(self, paths: Sequence[Path]) -> None:
        """Search the paths themselves; what is found is blanked out in every message about that file."""
        starts, lines = [], []
        at = 0
        for path in paths:
            starts.append(at)
            lines.append(os.fsencode(path) + b"\n")
            at += len(lines[-1])
        found: dict[int, list[tuple[int, int]]] = {}
        for offset, k in self.search.find([b"".join(lines)]):
            number = bisect_right(starts, offset) - 1
            found.setdefault(number, []).append((offset - starts[number], k))
        for number, hits in found.items():
            self._shown[paths[number]] = shown = _blanked(lines[number][:-1], [self._span(*hit) for hit in hits])
            found_here = dict.fromkeys(self.things[k][:2] for _, k in hits)
            self.hits += [Hit(shown, "file name", 0, number, form) for number, form in found_here]

    def file(self, path: Path) -> None:
        """Search one file, as it lies and unpacked."""
        try:
            self._stream(path, "", raw(path))
            for part, blocks in inside(path):
                self._stream(path, part, self._counted(blocks))
        except READING_ERRORS as error:
            self._gap(path, f"{type(error).__name__}: {getattr(error, 'strerror', None) or 'damaged or in use'}")

    def _below(self, path: Path) -> Iterator[tuple[Path, int]]:
        """Plain files at or below a path."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            for folder, _, names in os.walk(path, onerror=lambda e: self._gap(Path(e.filename), str(e.strerror))):
                for name in sorted(names):
                    yield from self._plain(Path(folder, name))
        else:
            yield from self._plain(path)

    def _plain(self, path: Path) -> Iterator[tuple[Path, int]]:
        try:
            status = path.lstat()
        except OSError as error:
            self._gap(path, str(error.strerror))
            return
        if stat.S_ISREG(status.st_mode):
            yield path, status.st_size

    def _stream(self, path: Path, part: str, blocks: Iterable[bytes]) -> None:
        seen = set()
        for offset, k in self.search.find(blocks):
            number, form, _ = self.things[k]
            if (number, form) not in seen:
                seen.add((number, form))
                self.hits.append(Hit(self._name(path), part, offset, number, form))

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.unpacked += len(block)
            yield block

    def _span(self, start: int, k: int) -> tuple[int, int, int]:
        number, _, length = self.things[k]
        return start, start + length, number

    def _gap(self, path: Path, reason: str) -> None:
        self.gaps.append(Gap(self._name(path), reason))

    def _name(self, path: Path) -> str:
        return self._shown.get(path, str(path))


def _with_siblings(place: Path) -> list[Path]:
    if place.is_dir():
        return [place]
    return [place, *(place.with_name(place.name + end) for end in _SQLITE_SIBLINGS)]


def _blanked(name: bytes, spans: Iterable[tuple[int, int, int]]) -> str:
    """The name with the needles' text replaced by their numbers."""
    pieces, at = [], 0
    for start, end, number in sorted(spans):
        if end > at:
            pieces += [name[at:start], f"[needle {number}]".encode()] if start >= at else []
            at = end
    return os.fsdecode(b"".join([*pieces, name[at:]]))
