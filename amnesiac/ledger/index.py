"""What a deletion has to know of a training sample, without reading what is known of all: a paged table of numbers.

`samples.parquet` says the same, with the ids; a ledger of 60,000 samples takes longer to read that than to delete.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from amnesiac.errors import DamagedStore
from amnesiac.page_digests import Bytes2D
from amnesiac.tables import PagedTable, write_table

NAME = "samples.table"
KEY, LEDGER_ROW, LABEL = range(3)
_WIDTH = 3 * 8
_REMEDY = "Restore the ledger with `dvc checkout`"
Numbers = npt.NDArray[np.int64]


def write_index(group: Path, key: Numbers, ledger_row: Numbers, label: Numbers) -> str:
    """Write the table of `[n]` samples: number of the key, row in the ledger, class (-1: none); its root."""
    columns: npt.NDArray[np.int64] = np.stack([key, ledger_row, label], 1).astype("<i8")
    rows: Bytes2D = np.ascontiguousarray(columns).view(np.uint8)
    return write_table(group, NAME, rows)


class SampleIndex:
    """The table, opened; raises DamagedStore unless its root is `root`."""

    def __init__(self, group: Path, root: str) -> None:
        self._group = group
        try:
            self._table = PagedTable(group, NAME)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DamagedStore(f"{group}: the table of samples can't be opened: {error}. {_REMEDY}") from error
        if self._table.root() != root or self._table.shape[1] != _WIDTH:
            raise DamagedStore(f"{group}: the table of samples isn't that of the manifest. {_REMEDY}")

    def __len__(self) -> int:
        return self._table.shape[0]

    def of(self, positions: npt.ArrayLike, column: int) -> Numbers:
        """A column of the samples at `positions`, `[k]`; raises DamagedStore, IndexError."""
        index = np.asarray(positions, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"{self._group} has the samples 0 to {len(self) - 1}, not {index.min()} to {index.max()}")
        try:
            rows = self._table.read(index)
        except (ValueError, OSError) as error:
            raise DamagedStore(f"{self._group}: the table of samples can't be read: {error}. {_REMEDY}") from error
        return np.ascontiguousarray(rows).view("<i8")[:, column].astype(np.int64)

    def all(self, column: int) -> Numbers:
        """A column of all samples, `[n]`."""
        return self.of(np.arange(len(self)), column)
