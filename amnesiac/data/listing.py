"""What a source holds before any image is decoded, so that checks come first and a limit decodes only what it keeps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amnesiac.data.samples import Flags, Images, Labels, Rows, Samples, Where, integer_labels
from amnesiac.errors import DataError
from amnesiac.progress import Progress

Decode = Callable[[Rows, Progress], Images]


@dataclass(frozen=True)
class Listing:
    """Labels and ids of all rows of a source, and the way to their images.

    `where(row)` names file and row for messages; `decode(rows, progress)` returns the images `[len(rows), c, h, w]`
    of ascending rows and raises DataError where one can't be read.
    """

    source: str
    labels: Labels
    sample_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    test: Flags | None
    where: Where
    decode: Decode

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Rows, progress: Progress) -> Samples:
        """Decode the images of ascending `rows`; raises DataError where one can't be read."""
        return Samples(
            images=self.decode(rows, progress),
            labels=self.labels[rows],
            sample_ids=tuple(self.sample_ids[row] for row in rows.tolist()),
            subject_ids=tuple(self.subject_ids[row] for row in rows.tolist()),
            class_names=self.class_names,
            source=self.source,
            test=None if self.test is None else self.test[rows],
        )


def numbered_ids(prefix: str, n: int) -> tuple[str, ...]:
    """`prefix-00000`, `prefix-00001`, ...: the ids of a source that has only positions."""
    return tuple(f"{prefix}-{row:05d}" for row in range(n))


def encode_labels(
    values: npt.NDArray[np.generic], names: tuple[str, ...] | None, where: Where
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as int64 with the class names.

    Numbers are kept, and named by `names` or by themselves; text is looked up in `names`, or in its own sorted
    values. Raises DataError at the first label that is missing or unknown.
    """
    if values.dtype.kind in "OUT":
        return _labels_of_text(values, names, where)
    labels = integer_labels(values, where)
    return labels, names or _numbered_classes(labels, where)


def _numbered_classes(labels: Labels, where: Where) -> tuple[str, ...]:
    # A label as large as the number of rows leaves a class empty: stop before a stray value names millions of classes.
    stray = np.flatnonzero((labels < 0) | (labels >= len(labels)))
    if len(stray):
        raise DataError(
            f"{where(int(stray[0]))}: label {labels[stray[0]]} is out of range: "
            f"number the classes 0, 1, 2, ... without gaps ({len(labels)} rows are here)"
        )
    return tuple(str(k) for k in range(int(labels.max(initial=-1)) + 1))


def _labels_of_text(
    values: npt.NDArray[np.generic], names: tuple[str, ...] | None, where: Where
) -> tuple[Labels, tuple[str, ...]]:
    words = values.tolist()
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise DataError(f"{where(row)}: the label is missing or not text ({word!r}): give the row a label")
    names = names or tuple(sorted(set(words)))
    number = {name: k for k, name in enumerate(names)}
    for row, word in enumerate(words):
        if word not in number:
            raise DataError(f"{where(row)}: label {word!r} isn't among the class names {list(names)}: correct it")
    return np.array([number[word] for word in words], np.int64), names
