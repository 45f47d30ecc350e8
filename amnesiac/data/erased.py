"""Samples of erased people that a source still holds are left out before anything is written."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from amnesiac.data.samples import Flags, Samples
from amnesiac.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """What `leave_out` has left out.

    samples   erased samples that the source still holds
    classes   names of classes of which no training sample is left; they are gone, and labels are numbered anew
    others    samples of those classes that weren't erased (test samples): nothing can be trained or measured on them
    """

    samples: int
    classes: tuple[str, ...] = ()
    others: int = 0


def leave_out(samples: Samples, erased: Flags) -> tuple[Samples, LeftOut]:
    """The samples that aren't erased (bool `[n]`), and what was left out.

    A class that loses its last training sample is removed as a whole, since a model can't be trained on it; the model
    trained afterwards has an output less. Raises DataError where no class keeps a training sample.
    """
    if not erased.any():
        return samples, LeftOut(0)
    gone = _vanished(samples, erased)
    keep = ~erased & ~gone[samples.labels]
    _refuse_nothing(samples, keep)
    names = tuple(name for name, lost in zip(samples.class_names, gone.tolist(), strict=True) if lost)
    left_out = LeftOut(int(erased.sum()), names, int((~keep & ~erased).sum()))
    if names:
        _log.warning(
            "%s: every training sample of class %s is erased: the class is left out with %d other samples, and the "
            "remaining classes are numbered anew",
            samples.source, ", ".join(map(repr, names)), left_out.others,
        )  # fmt: skip
    return _kept(samples, keep, gone), left_out


def _vanished(samples: Samples, erased: Flags) -> Flags:
    """Which classes `[classes]` had training samples and have none any more."""
    train = np.ones(len(samples), np.bool_) if samples.test is None else ~samples.test
    n_classes = len(samples.class_names)
    before, after = (np.bincount(samples.labels[rows], minlength=n_classes) for rows in (train, train & ~erased))
    return np.asarray((before > 0) & (after == 0))


def _refuse_nothing(samples: Samples, keep: Flags) -> None:
    train = keep if samples.test is None else keep & ~samples.test
    if not train.any():
        raise DataError(
            f"{samples.source}: every training sample is erased (tombstoned), so there is nothing to train on: "
            "name another source, or remove the model and its project"
        )


def _kept(samples: Samples, keep: Flags, gone: Flags) -> Samples:
    number = np.cumsum(~gone) - 1
    rows = np.flatnonzero(keep).tolist()
    return replace(
        samples,
        images=samples.images[keep],
        labels=number[samples.labels[keep]].astype(np.int64),
        sample_ids=tuple(samples.sample_ids[row] for row in rows),
        subject_ids=tuple(samples.subject_ids[row] for row in rows),
        class_names=tuple(name for name, lost in zip(samples.class_names, gone.tolist(), strict=True) if not lost),
        test=None if samples.test is None else samples.test[keep],
    )
