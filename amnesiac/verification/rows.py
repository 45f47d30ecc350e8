"""The sum of the rows that are still there, read a few megabytes at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amnesiac.errors import DamagedRow
from amnesiac.rowstore import RowArray, RowReader, RowSeal
from amnesiac.verification.decoding import Floats, layers_of, summing
from amnesiac.verification.sealed import ROWS, SETTLED, Sealed
from amnesiac.verification.tensors import REMEDY, Tensors

READ_BYTES = 4 << 20  # becomes float64, up to eight times as much
LISTED = 20
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSum:
    """total: by parameter, float64, None if a row is damaged;  read: rows;  problems: what is wrong with them."""

    total: dict[str, Floats] | None
    read: int
    problems: tuple[str, ...]


def sum_rows(sealed: Sealed, seal: RowSeal, rows: Ints, positions: Ints) -> RowSum:
    """Sum ledger rows `rows`, which belong to the training samples at `positions`, and are protected by `seal`.

    Raises DamagedStore when the rows can't be opened, the mask was altered, or rows have another length than the
    manifest says; rows that fail their check are all named in `problems`.
    """
    reader = RowReader(RowArray(sealed.folder / ROWS, SETTLED, sealed.run_id, seal))
    problems = _of_the_array(sealed, reader)
    if reader.row_bytes != sealed.row_bytes or len(rows) and rows.max() >= reader.n_rows:
        return RowSum(None, 0, problems)
    damaged = list[int]()
    total, add = np.zeros(_numel(sealed)), summing(sealed.codec, _mask(sealed))
    for part in _parts(len(rows), max(1, READ_BYTES // sealed.row_bytes)):
        try:
            total += add(reader.read(rows[part]))
        except DamagedRow:
            tried = range(part.start, part.stop)
            damaged += [k for k in tried if _is_damaged(reader, rows[k])] or tried
    problems += _of_rows(sealed, rows[damaged], positions[damaged])
    return RowSum(None if damaged else _by_parameter(sealed, total), len(rows) - len(damaged), problems)


def _of_the_array(sealed: Sealed, reader: RowReader) -> tuple[str, ...]:
    if (reader.n_rows, reader.row_bytes) != (sealed.n_rows, sealed.row_bytes):
        return (
            f"{sealed.folder / ROWS}: {SETTLED!r} has {reader.n_rows} rows of {reader.row_bytes} bytes, the manifest "
            f"says {sealed.n_rows} of {sealed.row_bytes}. {REMEDY}",
        )
    if reader.root() != sealed.root:
        return (f"{sealed.folder / ROWS}: the checksums of {SETTLED!r} aren't those of the manifest. {REMEDY}",)
    return ()


def _is_damaged(reader: RowReader, row: np.int64) -> bool:
    try:
        reader.read([int(row)])
    except DamagedRow:
        return True
    return False


def _of_rows(sealed: Sealed, rows: Ints, positions: Ints) -> tuple[str, ...]:
    named = zip(rows[:LISTED].tolist(), positions[:LISTED].tolist(), strict=True)
    listed = tuple(
        f"{sealed.folder / ROWS}: row {row} of {SETTLED!r}, of the training sample at position {position}, is damaged: "
        f"it was altered, lost or swapped. {REMEDY}"
        for row, position in named
    )
    rest = len(rows) - len(listed)
    return (*listed, f"and {rest} more rows of {SETTLED!r} are damaged") if rest else listed


def _mask(sealed: Sealed) -> Tensors:
    return sealed.tensors(sealed.codec["file"]) if sealed.codec["codec"] == "masked" else {}


def _numel(sealed: Sealed) -> int:
    return sum(layer.numel for layer in layers_of(sealed.codec))


def _parts(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _by_parameter(sealed: Sealed, total: Floats) -> dict[str, Floats]:
    found, start = dict[str, Floats](), 0
    for layer in layers_of(sealed.codec):
        for name, shape in zip(layer.names, layer.shapes, strict=True):
            size = int(np.prod(shape))
            found[name] = total[start : start + size].reshape(shape)
            start += size
    return found
