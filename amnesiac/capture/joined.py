"""Several processes' spools, read as one: each holds the visits of the samples that its process computed.

spool/process-0-of-2/visits.bin ...      what steps have in common is process 0's
spool/process-1-of-2/visits.bin ...
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from amnesiac.errors import UnsealedStore

Index = npt.NDArray[np.int64]
_OWN = re.compile(r"process-(?P<rank>\d+)-of-(?P<count>\d+)")


def process_folder(spool: Path, rank: int, count: int) -> Path:
    """Where a process's spool lies: for one alone, `spool` itself."""
    return spool if count == 1 else spool / f"process-{rank}-of-{count}"


def process_folders(spool: Path) -> list[Path]:
    """All processes' spools, by rank; none for a run on one. Raises UnsealedStore where one is missing."""
    found = [match for path in spool.iterdir() if (match := _OWN.fullmatch(path.name))] if spool.is_dir() else []
    if not found:
        return []
    count = int(found[0]["count"])
    folders = [process_folder(spool, rank, count) for rank in range(count)]
    if {match.string for match in found} != {folder.name for folder in folders}:
        raise UnsealedStore(
            f"{spool} holds the spools {sorted(match.string for match in found)}, which aren't those of one run on "
            f"{count} processes: train again without --resume"
        )
    return folders


@dataclass(frozen=True)
class JoinedRows:
    """Rows `[n, width]` of several files one after another, none of them copied: `rows[positions]` reads some."""

    parts: tuple[npt.NDArray[np.uint8], ...]

    @property
    def starts(self) -> Index:
        """Of each part's first row."""
        return np.cumsum([0, *(len(part) for part in self.parts[:-1])])

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, positions: Index) -> npt.NDArray[np.uint8]:
        """The rows at these positions, `[len(positions), width]`."""
        starts, found = self.starts, np.empty((len(positions), self.parts[0].shape[1]), np.uint8)
        owners = np.searchsorted(starts, positions, side="right") - 1
        for owner in np.unique(owners):
            own = owners == owner
            found[own] = self.parts[owner][positions[own] - starts[owner]]
        return found


def joined_index(indices: Sequence[Index], rows: JoinedRows) -> Index:
    """Indices `[visits, 3]` as one, in the order of the steps, their slots pointing into `rows`."""
    moved = []
    for index, start in zip(indices, rows.starts, strict=True):
        slots = np.where(index[:, 2] >= 0, index[:, 2] + start, -1)
        moved.append(np.column_stack([index[:, :2], slots]))
    whole = np.concatenate(moved)
    return whole[np.argsort(whole[:, 1], kind="stable")]
