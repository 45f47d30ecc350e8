"""`npz`: arrays `images` and `labels` (or `x`, `y`) in one NumPy archive, read without pickle."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.data.listing import Listing, encode_labels, numbered_ids
from amnesiac.data.samples import Images, Where
from amnesiac.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]
NAMES = {
    "images": ("images", "x"),
    "labels": ("labels", "y"),
    "test images": ("x_test",),
    "test labels": ("y_test",),
    "sample ids": ("sample_ids",),
    "subject ids": ("subject_ids",),
    "class names": ("class_names",),
}


def list_npz(path: Path) -> Listing:
    """Images `[n, h, w]`, `[n, c, h, w]` or `[n, h, w, c]` with c 1 or 3, uint8 or float, and labels `[n]`.

    Optional: `x_test` and `y_test` (the test split), `sample_ids` and `subject_ids` (for the training samples, or for
    the training samples followed by the test samples), `class_names`. Floats are kept as float32. Raises DataError
    for missing, unknown or malformed arrays.
    """
    arrays = _by_role(_read(path), path)
    images, labels, test = _joined(arrays, path)
    where = _locator(path, len(arrays["images"]))
    numbers, names = encode_labels(labels, _class_names(arrays), where)
    ids = _ids(arrays, "sample ids", _default_ids(path, arrays), path)
    return Listing(
        source=f"npz {path}",
        labels=numbers,
        sample_ids=ids,
        subject_ids=_ids(arrays, "subject ids", ids, path),
        class_names=names,
        test=test,
        where=where,
        decode=lambda rows, progress: images[rows],
    )


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:  # opened here: numpy leaves a broken archive open
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: can't be read as an npz archive of plain arrays ({error}): "
            "write it by numpy.savez with number and text arrays (no objects)"
        ) from error


def _by_role(arrays: Arrays, path: Path) -> Arrays:
    unknown = sorted(set(arrays) - {name for names in NAMES.values() for name in names})
    if unknown:
        known = ", ".join("|".join(names) for names in NAMES.values())
        raise DataError(f"{path}: unknown array {', '.join(unknown)}: rename or remove it (known: {known})")
    found = {role: [arrays[name] for name in names if name in arrays] for role, names in NAMES.items()}
    for role, several in found.items():
        if len(several) > 1:
            raise DataError(f"{path}: {' and '.join(NAMES[role])} both give the {role}: keep one of them")
    roles = {role: several[0] for role, several in found.items() if several}
    _check_roles(roles, path)
    return roles


def _check_roles(roles: Arrays, path: Path) -> None:
    needed = ["images", "labels"]
    if "test images" in roles or "test labels" in roles:
        needed += ["test images", "test labels"]
    for role in needed:
        if role not in roles:
            raise DataError(f"{path}: array {' or '.join(NAMES[role])} is missing: the archive needs the {role}")
    for role, of in (("labels", "images"), ("test labels", "test images")):
        if role in roles and roles[role].shape != roles[of].shape[:1]:
            raise DataError(
                f"{path}: {role} have shape {list(roles[role].shape)}, {of} {list(roles[of].shape)}: "
                "give one label for each image"
            )


def _joined(arrays: Arrays, path: Path) -> tuple[Images, npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    images, labels = _channels_first(arrays["images"], path), arrays["labels"]
    if "test images" not in arrays:
        return images, labels, None
    test_images = _channels_first(arrays["test images"], path)
    if test_images.shape[1:] != images.shape[1:] or test_images.dtype != images.dtype:
        raise DataError(
            f"{path}: x_test is {test_images.dtype} {list(test_images.shape[1:])} [c, h, w], the training images are "
            f"{images.dtype} {list(images.shape[1:])}: bring both to one shape and type"
        )
    test = np.repeat([False, True], [len(images), len(test_images)])
    return np.concatenate([images, test_images]), np.concatenate([labels, arrays["test labels"]]), test


def _channels_first(images: npt.NDArray[Any], path: Path) -> Images:
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(f"{path}: images are {images.dtype}: save them as uint8 (0 to 255) or float32")
    if images.ndim not in (3, 4):
        raise DataError(f"{path}: images have shape {list(images.shape)}: give [n, h, w] or [n, c, h, w]")
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which the row check reports
        return np.ascontiguousarray(images, np.uint8 if images.dtype == np.uint8 else np.float32)


def _class_names(arrays: Arrays) -> tuple[str, ...] | None:
    return tuple(map(str, arrays["class names"].tolist())) if "class names" in arrays else None


def _default_ids(path: Path, arrays: Arrays) -> tuple[str, ...]:
    if "test images" not in arrays:
        return numbered_ids(path.stem, len(arrays["images"]))
    train, test = len(arrays["images"]), len(arrays["test images"])
    return numbered_ids(f"{path.stem}-train", train) + numbered_ids(f"{path.stem}-test", test)


def _ids(arrays: Arrays, role: str, default: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Ids of the archive for the rows that it gives them to, `default` for the rest."""
    if role not in arrays:
        return default
    given = arrays[role]
    allowed = (len(arrays["images"]), len(default))
    if given.dtype.kind not in "UTiu" or given.ndim != 1 or len(given) not in allowed:
        raise DataError(
            f"{path}: {role} are {given.dtype} {list(given.shape)}: give text or integers, one for each of the "
            f"{' (or all '.join(map(str, dict.fromkeys(allowed)))}{')' if allowed[0] != allowed[1] else ''} samples"
        )
    return tuple(map(str, given.tolist())) + default[len(given) :]


def _locator(path: Path, n_train: int) -> Where:
    return lambda row: f"{path}: row {row}" if row < n_train else f"{path}: row {row - n_train} of x_test"
