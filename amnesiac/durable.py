"""Files and folders that appear whole or not at all: write aside, fsync, rename."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    _sweep(destination)
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


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that a rename in it survives a power cut."""
    _sync(path)


def _sweep(destination: Path) -> None:
    """Mend what a killed process left: a content that was moved out of the way comes back, half-written ones go."""
    for old in _left_behind(destination, "old"):
        if destination.exists():
            shutil.rmtree(old)
        else:
            old.rename(destination)
    for partial in _left_behind(destination, "partial"):
        shutil.rmtree(partial)


def _left_behind(destination: Path, kind: str) -> list[Path]:
    """Folders of exactly this destination: `.a.b.7.old` is one of `a.b`, not of `a`."""
    if not destination.parent.is_dir():
        return []
    name = re.compile(rf"\.{re.escape(destination.name)}\.\d+\.{kind}")
    return [path for path in destination.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
