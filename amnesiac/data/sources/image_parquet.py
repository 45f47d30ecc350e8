"""`image-parquet`: encoded images in a column `img` or `image` (struct of bytes and path) beside a label column.

The usual layout of published image data sets (Hugging Face's `Image` feature).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from amnesiac.data.listing import Listing, encode_labels, numbered_ids
from amnesiac.data.samples import Images, Rows, Where
from amnesiac.data.sources.decoding import decode_image, stack_images
from amnesiac.errors import DataError
from amnesiac.progress import Progress

IMAGE_COLUMNS = ("img", "image")
BATCH_ROWS = 1000


@dataclass(frozen=True)
class ParquetPart:
    """One file, the prefix of the ids of its rows, and whether it belongs to the test split."""

    path: Path
    prefix: str
    test: bool


@dataclass(frozen=True)
class _Table:
    """What is read of one file before its images: columns aside from the image, and where that is."""

    part: ParquetPart
    columns: Any
    image_column: str
    class_names: tuple[str, ...] | None


def list_image_parquet(path: Path, label_column: str, subject_column: str | None) -> Listing:
    """A file or a folder of `*.parquet`; files `train*` and `test*` are the splits when a folder has both.

    Ids come from a column `sample_id`, else from file name and row. Class names come from the schema metadata
    (`LABELCOLUMN_names`, separated by commas, or Hugging Face's ClassLabel), else they are the labels. Raises
    DataError for missing files and columns and for malformed rows.
    """
    return list_parts(_parts(path), label_column, subject_column, f"image-parquet {path}")


def list_parts(parts: Sequence[ParquetPart], label_column: str, subject_column: str | None, source: str) -> Listing:
    """List the rows of several files, one after the other; raises DataError as `list_image_parquet` does."""
    tables = [_read(part, label_column, subject_column) for part in parts]
    starts = np.cumsum([0, *(table.columns.num_rows for table in tables)])
    where = _locator(parts, starts)
    values = np.concatenate([_label_values(table, label_column) for table in tables])
    labels, names = encode_labels(values, _agreed_names(tables), where)
    ids = tuple(name for table in tables for name in _ids(table))
    subjects = tuple(name for table in tables for name in _text(table, subject_column)) if subject_column else ids
    flags = np.repeat([part.test for part in parts], np.diff(starts))
    return Listing(
        source=source,
        labels=labels,
        sample_ids=ids,
        subject_ids=subjects,
        class_names=names,
        test=flags if flags.any() else None,
        where=where,
        decode=lambda rows, progress: _decode(tables, starts, rows, where, progress),
    )


def _parts(path: Path) -> list[ParquetPart]:
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise DataError(f"{path}: has no parquet file: name a .parquet file or a folder of them in data.path")
    named = {name: [file for file in files if file.name.startswith(name)] for name in ("train", "test")}
    split = bool(named["train"] and named["test"])
    stray = [file for file in files if split and file not in named["train"] + named["test"]]
    if stray:
        raise DataError(f"{stray[0]}: is neither a train nor a test file beside files that are: rename it, or move it")
    ordered = named["train"] + named["test"] if split else files
    return [ParquetPart(file, _prefix(file), split and file in named["test"]) for file in ordered]


def _prefix(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", file.stem)


def _read(part: ParquetPart, label_column: str, subject_column: str | None) -> _Table:
    try:
        with pq.ParquetFile(part.path) as file:
            schema = file.schema_arrow
            image_column = _image_column(schema, part.path)
            wanted = [label_column, *([subject_column] if subject_column else [])]
            _check_columns(schema, wanted, part.path)
            optional = ["sample_id"] if "sample_id" in schema.names else []
            columns = file.read(columns=list(dict.fromkeys(wanted + optional)))
            return _Table(part, columns, image_column, _schema_names(schema, label_column, part.path))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{part.path}: can't be read as parquet ({error}): write or download it again") from error


def _check_columns(schema: Any, wanted: Sequence[str], path: Path) -> None:
    for name in wanted:
        if name not in schema.names:
            raise DataError(
                f"{path}: column {name!r} is missing (it has {schema.names}): "
                "name the right one in data.label_column or data.subject_column"
            )


def _image_column(schema: Any, path: Path) -> str:
    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            raise DataError(f"{path}: column {name!r} is {kind}: make it a struct of bytes and path")
    raise DataError(
        f"{path}: no image column (it has {schema.names}): name it img or image, a struct of bytes and path"
    )


def _schema_names(schema: Any, label_column: str, path: Path) -> tuple[str, ...] | None:
    metadata = schema.metadata or {}
    plain = metadata.get(f"{label_column}_names".encode())
    if plain is not None:
        return tuple(plain.decode().split(","))
    if b"huggingface" not in metadata:
        return None
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]
    except ValueError as error:
        raise DataError(f"{path}: schema metadata 'huggingface' isn't JSON ({error}): write the file again") from error
    except (KeyError, TypeError):  # it describes other columns
        return None
    return tuple(feature["names"]) if "names" in feature else None


def _agreed_names(tables: Sequence[_Table]) -> tuple[str, ...] | None:
    first = tables[0]
    for table in tables[1:]:
        if table.class_names != first.class_names:
            raise DataError(
                f"{table.part.path}: class names in the schema differ from {first.part.path}: "
                "write all files with the same names"
            )
    return first.class_names


def _label_values(table: _Table, label_column: str) -> Any:
    return table.columns[label_column].to_numpy()


def _ids(table: _Table) -> tuple[str, ...]:
    if "sample_id" in table.columns.column_names:
        return _text(table, "sample_id")
    return numbered_ids(table.part.prefix, table.columns.num_rows)


def _text(table: _Table, column: str) -> tuple[str, ...]:
    """An id column as text; an empty cell becomes '' and is reported with its row by the checks of ids."""
    values = table.columns[column]
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{table.part.path}: column {column!r} is {kind}: save ids as text or integers")
    return tuple(pc.fill_null(values.cast(kind).cast(pa.string()), "").to_pylist())


def _locator(parts: Sequence[ParquetPart], starts: Rows) -> Where:
    def where(row: int) -> str:
        k = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{parts[k].path}: row {row - int(starts[k])}"

    return where


def _decode(tables: Sequence[_Table], starts: Rows, rows: Rows, where: Where, progress: Progress) -> Images:
    images = (
        decode_image(encoded, where(int(row)))
        for row, encoded in zip(rows, _encoded(tables, starts, rows, where), strict=True)
    )
    return stack_images(images, len(rows), lambda k: where(int(rows[k])), progress)


def _encoded(tables: Sequence[_Table], starts: Rows, rows: Rows, where: Where) -> Iterator[Any]:
    """The bytes of ascending rows, one row group at a time; groups without a wanted row aren't read."""
    for table, start, end in zip(tables, starts[:-1], starts[1:], strict=True):
        wanted = rows[(rows >= start) & (rows < end)] - start
        try:
            for row, encoded in zip(wanted, _encoded_of(table, wanted), strict=True):
                if encoded is None:
                    raise DataError(
                        f"{where(int(start + row))}: has no image bytes: embed the image, or remove the row"
                    )
                yield encoded
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{table.part.path}: can't be read ({error}): write or download it again") from error


def _encoded_of(table: _Table, wanted: Rows) -> Iterator[Any]:
    column = f"{table.image_column}.bytes"
    with pq.ParquetFile(table.part.path) as file:
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if np.any((wanted >= first) & (wanted < end)):
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
                    here = wanted[(wanted >= first) & (wanted < first + batch.num_rows)] - first
                    values = pc.struct_field(batch.column(0), "bytes")
                    yield from (values[int(row)].as_buffer() for row in here)
                    first += batch.num_rows
            first = end
