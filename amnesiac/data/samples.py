"""Samples in memory with stable ids, and the checks that every source's samples pass before anything is written.

Rows are counted from 0 in every message.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.errors import DataError

Images = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Where = Callable[[int], str]

ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True)
class Samples:
    """Images with labels, stable sample ids and the subject (person, owner) of each sample.

    images       uint8 or float32 [n, c, h, w]
    labels       int64 [n], an index into `class_names`
    sample_ids   n ids, unique, each matching `ID_PATTERN`
    subject_ids  n ids; one subject may own many samples; a sample without a known subject is its own
    source       where the samples come from, as messages name it
    test         bool [n], the source's own test split; None where it has none
    """

    images: Images
    labels: Labels
    sample_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str
    test: Flags | None = None

    def __len__(self) -> int:
        return len(self.images)


def check_samples(samples: Samples, where: Where | None = None) -> None:
    """Raise DataError naming file, row and remedy where samples break a rule of `Samples`.

    `where(row)` names the file and row that a sample came from; without it, source and row are named.
    """
    where = where or (lambda row: f"{samples.source}: row {row}")
    check_lengths(samples.source, samples.images, samples)
    check_rows(samples, where)
    check_images(samples.images, where)


def check_rows(rows: Any, where: Where) -> None:
    """Check ids, labels and classes of anything with the fields of `Samples`, images aside; raises DataError."""
    check_ids(rows.sample_ids, "sample id", where)
    check_unique(rows.sample_ids, where)
    check_ids(rows.subject_ids, "subject id", where)
    check_class_names(rows.class_names, rows.source)
    integer_labels(rows.labels, where)
    check_types(rows)
    check_label_range(rows.labels, len(rows.class_names), where)
    check_classes_filled(rows.labels, rows.test, rows.class_names, rows.source)


def check_lengths(source: str, values: Sequence[Any] | npt.NDArray[Any], rows: Any) -> None:
    """Raise DataError where labels, ids or the test flags aren't as many as `values`, or where there is nothing."""
    if len(values) == 0:
        raise DataError(f"{source}: holds no samples: name a source with at least one sample for each class")
    others = {"labels": rows.labels, "sample ids": rows.sample_ids, "subject ids": rows.subject_ids}
    if rows.test is not None:
        others["test flags"] = rows.test
    for what, other in others.items():
        if len(other) != len(values):
            raise DataError(f"{source}: {len(values)} images but {len(other)} {what}: give one for each image")


def check_ids(ids: Sequence[str], what: str, where: Where) -> None:
    """Raise DataError at the first id that doesn't match `ID_PATTERN`."""
    for row, name in enumerate(ids):
        if not ID_PATTERN.fullmatch(name):
            raise DataError(f"{where(row)}: {what} {name!r} must be 1 to 64 of A-Z a-z 0-9 _ . : - : rename it")


def check_unique(sample_ids: Sequence[str], where: Where) -> None:
    """Raise DataError at the first id that two rows share, naming both."""
    if len(set(sample_ids)) == len(sample_ids):
        return
    seen: dict[str, int] = {}
    for row, name in enumerate(sample_ids):
        if name in seen:
            raise DataError(
                f"{where(row)}: sample id {name!r} is already used by {where(seen[name])}: "
                "give every sample an id of its own"
            )
        seen[name] = row


def check_class_names(names: Sequence[str], source: str) -> None:
    """Raise DataError where class names are missing, blank or used twice."""
    if not names or any(not name.strip() for name in names):
        raise DataError(f"{source}: class names {list(names)} must be given and not blank: name every class")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(f"{source}: class names {twice} are used twice: give every class a name of its own")


def integer_labels(values: npt.NDArray[Any], where: Where) -> Labels:
    """Labels `[n]` as int64; raises DataError at the first that is missing (NaN) or not a whole number."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise DataError(f"{where(0)}: labels of type {values.dtype} aren't numbers: save them as int64")
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        raise DataError(f"{where(int(missing[0]))}: the label is missing (NaN): give it one, or remove the row")
    broken = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)))
    if len(broken):
        row = int(broken[0])
        raise DataError(f"{where(row)}: label {values[row]} isn't a whole number: use class numbers 0, 1, 2, ...")
    return values.astype(np.int64)


def check_types(rows: Any) -> None:
    """Raise DataError unless labels are int64 and the test flags bool: as positions, other types mean other rows."""
    if rows.labels.dtype != np.int64:
        raise DataError(f"{rows.source}: labels are {rows.labels.dtype}: convert them to int64")
    if rows.test is not None and rows.test.dtype != np.bool_:
        raise DataError(f"{rows.source}: the test flags are {rows.test.dtype}: convert them to bool")


def check_label_range(labels: Labels, n_classes: int, where: Where) -> None:
    """Raise DataError at the first label that isn't one of 0 .. n_classes-1."""
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{where(row)}: label {labels[row]} is out of range 0 to {n_classes - 1} ({n_classes} classes): "
            "correct the label, or name its class"
        )


def check_classes_filled(labels: Labels, test: Flags | None, names: Sequence[str], source: str) -> None:
    """Raise DataError naming the classes that have no training sample."""
    train = labels if test is None else labels[~test]
    empty = np.flatnonzero(np.bincount(train, minlength=len(names)) == 0)
    if len(empty):
        raise DataError(
            f"{source}: no training sample of class {', '.join(f'{names[k]!r} (label {k})' for k in empty[:5])}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}: "
            "add samples, or remove the class and number the labels 0, 1, 2, ... without gaps"
        )


def check_images(images: Images, where: Where) -> None:
    """Raise DataError unless images are uint8 or finite float32 `[n, c, h, w]` with no empty axis."""
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"{where(0)}: images are {images.dtype} {list(images.shape)}: give uint8 or float32 [n, c, h, w]"
        )
    if images.dtype == np.uint8:
        return
    broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(broken):
        raise DataError(
            f"{where(int(broken[0]))}: the image holds values that aren't finite (NaN or infinity): "
            "mend the image, or remove the row"
        )
