"""Which subject owns which sample, from a CSV or parquet file with the columns sample_id and subject_id."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from amnesiac.data.samples import Where, check_ids, check_unique
from amnesiac.errors import DataError

COLUMNS = ("sample_id", "subject_id")


def subjects_from_file(path: Path, sample_ids: Sequence[str]) -> tuple[str, ...]:
    """The subject of each sample, in the samples' order; a sample that isn't listed is its own subject.

    Raises DataError for an unreadable file, missing columns, malformed or repeated ids and unknown samples.
    """
    table = _read_table(path)
    where = _locator(path)
    listed, subjects = table["sample_id"].tolist(), table["subject_id"].tolist()
    check_ids(listed, "sample id", where)
    check_unique(listed, where)
    check_ids(subjects, "subject id", where)
    _check_known(listed, set(sample_ids), where)
    owner = dict(zip(listed, subjects, strict=True))
    return tuple(owner.get(name, name) for name in sample_ids)


def _read_table(path: Path) -> pd.DataFrame:
    """Both columns as text; nothing is guessed (`007` and `NA` stay what they are)."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the subjects file can't be read as CSV or parquet: {error}") from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: column {', '.join(missing)} is missing (it has {list(map(str, table.columns))}): "
            "a subjects file needs the columns sample_id and subject_id"
        )
    return pd.DataFrame({name: _as_text(table[name], path) for name in COLUMNS})


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _as_text(column: "pd.Series[str]", path: Path) -> "pd.Series[str]":
    if not (pd.api.types.is_string_dtype(column) or pd.api.types.is_integer_dtype(column)):
        raise DataError(f"{path}: column {column.name} holds {column.dtype}: save the ids as text, none of them empty")
    return column.astype("string").fillna("").astype(object)


def _check_known(listed: Sequence[str], known: set[str], where: Where) -> None:
    unknown = [(row, name) for row, name in enumerate(listed) if name not in known]
    if unknown:
        row, name = unknown[0]
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise DataError(f"{where(row)}: sample id {name!r} isn't in the data{more}: correct it, or remove the row")


def _locator(path: Path) -> Where:
    # A CSV's rows are named by line, as editors show them: the header is line 1.
    return (lambda row: f"{path}: row {row}") if path.suffix == ".parquet" else (lambda row: f"{path}: line {row + 2}")
