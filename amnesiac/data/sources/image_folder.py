"""`image-folder`: one directory for each class, optionally below `train/` and `test/`."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amnesiac.data.listing import Listing
from amnesiac.data.samples import Images, Rows
from amnesiac.data.sources.decoding import decode_image, stack_images
from amnesiac.errors import DataError
from amnesiac.progress import Progress

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def list_image_folder(root: Path) -> Listing:
    """All images in the order of their paths; a sample's id is its path below `root`, `/` written as `:`.

    Class names are the directories' names, sorted. Raises DataError for a folder without class directories, a class
    directory without images and files that aren't images (hidden files are passed over).
    """
    parts = _parts(root)
    files = [file for part in parts for directory in _directories(part) for file in _images(directory)]
    names = [file.relative_to(root).parts[len(parts[0].relative_to(root).parts)] for file in files]
    classes = sorted(set(names))
    ids = tuple(_sample_id(file.relative_to(root)) for file in files)
    return Listing(
        source=f"image-folder {root}",
        labels=np.array([classes.index(name) for name in names], np.int64),
        sample_ids=ids,
        subject_ids=ids,
        class_names=tuple(classes),
        test=np.array([file.is_relative_to(parts[1]) for file in files]) if len(parts) == 2 else None,
        where=lambda row: f"{files[row]} (row {row})",
        decode=lambda rows, progress: _decode(files, rows, progress),
    )


def _parts(root: Path) -> list[Path]:
    """The folders that hold class directories: `[root]`, `[train]` or `[train, test]`."""
    if not root.is_dir():
        raise DataError(f"{root}: isn't a folder: name a folder with one directory for each class in data.path")
    found = {directory.name for directory in _directories(root)}
    if {"train", "test"} <= found or found == {"train"}:
        stray = sorted(found - {"train", "test"})
        if stray:
            raise DataError(f"{root / stray[0]}: lies beside train/ and test/: move it into one of them")
        return [root / name for name in ("train", "test") if name in found]
    return [root]


def _directories(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise DataError(f"{folder}: has no class directories: put the images into one directory for each class")
    return found


def _images(directory: Path) -> list[Path]:
    files = sorted(path for path in directory.rglob("[!.]*") if path.is_file())
    if not files:
        raise DataError(f"{directory}: the class has no images: add some, or remove the directory")
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise DataError(f"{file}: isn't an image file ({' '.join(SUFFIXES)}): move it away, or convert it")
    return files


def _sample_id(relative: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", relative.as_posix().replace("/", ":"))


def _decode(files: Sequence[Path], rows: Rows, progress: Progress) -> Images:
    wanted = [files[row] for row in rows.tolist()]
    images = (decode_image(_read(file), f"{file} (row {row})") for file, row in zip(wanted, rows, strict=True))
    return stack_images(images, len(rows), lambda k: f"{wanted[k]} (row {rows[k]})", progress)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error}): mend the file's permissions, or remove it") from error
