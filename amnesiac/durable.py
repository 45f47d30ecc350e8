"""Files and folders that appear whole or not at all: write aside, fsync, rename."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ASIDE = re.compile(r"\.(?P<name>.+)\.\d+\.(?P<kind>partial|old)")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably (file and folder are fsynced)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder aside; on success it replaces `destination`, on error nothing is left of it."""
    _sweep_of(destination)
    aside = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    aside.mkdir(parents=True)
    try:
        yield aside
        replace_folder(aside, destination)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace_folder(source: Path, destination: Path) -> None:
    """Move a folder to `destination`, whose former content is removed afterwards."""
    for path in (source, *source.rglob("*")):
        _sync(path)
    old = destination.with_name(f".{destination.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    source.rename(destination)
    sync_folder(destination.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Remove what a killed process was writing in `folder`; names of what went, without process ids.

    A content that was moved out of the way comes back if nothing took its place. For the one writer: what another
    process is writing at the moment would go as well.
    """
    found = list(filter(None, map(_ASIDE.fullmatch, _names(folder))))
    for match in sorted(found, key=lambda match: match["kind"]):  # contents come back before anything goes
        aside, destination = folder / match.string, folder / match["name"]
        if match["kind"] == "old" and not destination.exists():
            aside.rename(destination)
        else:
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    return sorted({match["name"] for match in found})


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that a rename in it survives a power cut."""
    _sync(path)


def _sweep_of(destination: Path) -> None:
    """Mend what a killed process left of one folder: its content comes back, half-written ones go."""
    for old in _left_behind(destination, "old"):
        if destination.exists():
            shutil.rmtree(old)
        else:
            old.rename(destination)
    for partial in _left_behind(destination, "partial"):
        shutil.rmtree(partial)


def _left_behind(destination: Path, kind: str) -> list[Path]:
    """Folders of exactly this destination: `.a.b.7.old` is one of `a.b`, not of `a`."""
    matches = [(name, _ASIDE.fullmatch(name)) for name in _names(destination.parent)]
    named = [
        destination.parent / name for name, m in matches if m and (m["name"], m["kind"]) == (destination.name, kind)
    ]
    return [path for path in named if path.is_dir()]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
