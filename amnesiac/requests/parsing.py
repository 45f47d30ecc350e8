"""Deletion requests from CSV and JSON lines. What is in doubt is refused, with file, line and remedy.

CSV         a header with at least one of sample_id, subject_id, class, and optionally request_id; each row fills
            one of the first three. Rows of one request_id are one request; a row without one is a request by itself.
JSON lines  each line is a request: {"samples": ["7", "9"]}, {"subject": "p1"} or {"class": "3"}, each with one
            text or a list of texts, and optionally "request_id".
"""

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesiac.errors import RequestError
from amnesiac.requests.request import Kind, RequestDraft

MAX_BYTES = 64 << 20
_COLUMNS: dict[str, Kind] = {"sample_id": "samples", "subject_id": "subject", "class": "class"}
_FIELDS: tuple[Kind, ...] = ("samples", "subject", "class")


def read_requests(path: Path) -> list[RequestDraft]:
    """Read all requests of a .csv, .jsonl or .ndjson file, in the order of their first lines.

    UTF-8 (a byte order mark is passed over), at most `MAX_BYTES`, and no symbolic link. Raises RequestError
    naming the file, the line and the remedy; nothing is returned then, however many other lines are good.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise RequestError(f"{path}: requests are read from {', '.join(_PARSERS)} files: rename it, or convert it")
    drafts = parse(_read_text(path), path)
    if not drafts:
        raise RequestError(f"{path} holds no requests: add at least one, or name another file")
    return drafts


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{path}:{line} isn't UTF-8 text ({error.reason}): save the file as UTF-8") from error


def _read_bytes(path: Path) -> bytes:
    # O_NONBLOCK: opening a named pipe must not hang. What was opened is checked, so that nothing can be swapped
    # between check and use.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise RequestError(f"{path} can't be read ({reason}): name a plain file that you may read") from error
    # A raw descriptor first: a Python file can't be made of a folder's.
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RequestError(f"{path} isn't a plain file: name one")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise RequestError(f"{path} is larger than {MAX_BYTES >> 20} MiB: split it into several files")
    return data


@dataclass(frozen=True)
class _Row:
    """One row of a CSV file, and where it stands."""

    where: str
    kind: Kind
    value: str
    request_id: str | None


def _parse_csv(text: str, path: Path) -> list[RequestDraft]:
    groups: dict[str, list[_Row]] = {}
    for number, row in enumerate(_csv_rows(text, path)):
        # NUL can't stand in a request_id, so rows without one never fall together.
        groups.setdefault(row.request_id or f"\0{number}", []).append(row)
    return [_draft_of_rows(rows) for rows in groups.values()]


def _draft_of_rows(rows: list[_Row]) -> RequestDraft:
    first = rows[0]
    for row in rows:
        # Each row by itself first, so that an error names the row that is wrong.
        _draft(row.where, row.kind, (row.value,), row.request_id)
        if row.kind != first.kind:
            raise RequestError(
                f"{row.where}: request {row.request_id!r} is by {row.kind} here and by {first.kind} at "
                f"{first.where}: a request is of one kind, so give the rows different request_ids"
            )
    return _draft(first.where, first.kind, tuple(row.value for row in rows), first.request_id)


def _csv_rows(text: str, path: Path) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if header is None:
                header = _check_header(cells, where)
            else:
                yield _csv_row(header, cells, where)
    except csv.Error as error:
        raise RequestError(f"{path}:{reader.line_num} isn't CSV ({error}): mend its quotes and commas") from error


def _check_header(cells: list[str], where: str) -> list[str]:
    allowed = [*_COLUMNS, "request_id"]
    unknown = [cell for cell in cells if cell not in allowed]
    if unknown:
        raise RequestError(f"{where}: unknown columns {unknown!r:.200}: the header may name {', '.join(allowed)}")
    if len(set(cells)) < len(cells):
        raise RequestError(f"{where}: a column stands twice in the header: remove one of them")
    if not set(cells) & set(_COLUMNS):
        raise RequestError(f"{where}: the header names none of {', '.join(_COLUMNS)}: add one of them")
    return cells


def _csv_row(header: list[str], cells: list[str], where: str) -> _Row:
    if len(cells) != len(header):
        raise RequestError(f"{where}: {len(cells)} cells under {len(header)} columns: quote a cell that holds a comma")
    filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    request_id = filled.pop("request_id", None)
    if len(filled) != 1:
        raise RequestError(
            f"{where}: the row fills {' and '.join(filled) or 'nothing'}: fill just one of {', '.join(_COLUMNS)}"
        )
    [(column, value)] = filled.items()
    return _Row(where, _COLUMNS[column], value, request_id)


def _parse_json_lines(text: str, path: Path) -> list[RequestDraft]:
    # Only \n ends a line: str.splitlines would also split at characters that JSON allows within a text.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [_json_draft(line, f"{path}:{number}") for number, line in lines]


def _json_draft(line: str, where: str) -> RequestDraft:
    fields = _json_object(line, where)
    unknown = [name for name in fields if name not in (*_FIELDS, "request_id")]
    if unknown:
        raise RequestError(f"{where}: unknown fields {unknown!r:.200}: use {', '.join(_FIELDS)}, request_id")
    request_id = fields.pop("request_id", None)
    if len(fields) != 1:
        raise RequestError(
            f"{where}: it names {' and '.join(fields) or 'nothing'}: name just one of {', '.join(_FIELDS)}"
        )
    [(kind, values)] = fields.items()
    listed = values if isinstance(values, list) else [values]
    return _draft(where, kind, tuple(listed), request_id)


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} isn't a line of JSON ({error}): write one object a line") from error
    if not isinstance(value, dict):
        raise RequestError(f'{where} isn\'t a JSON object: write it like {{"samples": ["7"]}}')
    return value


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python keeps the last of two equal names in silence; here that would lose a deletion.
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _draft(where: str, kind: Any, values: tuple[Any, ...], request_id: Any) -> RequestDraft:
    try:
        return RequestDraft(kind, values, request_id)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from error


_PARSERS: dict[str, Callable[[str, Path], list[RequestDraft]]] = {
    ".csv": _parse_csv,
    ".jsonl": _parse_json_lines,
    ".ndjson": _parse_json_lines,
}
