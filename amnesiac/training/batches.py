"""Which samples meet in which mini-batch, and how they are augmented: functions of the seed alone.

The plan covers *all* training samples, so leaving some out (retraining without the forget set) changes nothing for
the others:
same order, same mini-batches, same random shifts, and the scheduled mini-batch size as the loss's denominator.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from amnesiac.seeding import numpy_generator
from amnesiac.settings import AugmentSettings

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A (logical) mini-batch: one optimiser step.

    rows:      samples present, positions in the training split
    scheduled: the size before samples were left out
    parts:     of `rows`, what one process computes, in the (physical) parts that it computes at once; none is empty
    """

    rows: Rows
    scheduled: int
    parts: tuple[Rows, ...]


@dataclass(frozen=True)
class Slice:
    """What a process computes of each mini-batch: the `rank`-th of `count` slices, at most `at_once` samples at a time
    (None: all). Cut before samples are left out, so that the others stay where they are.
    """

    rank: int = 0
    count: int = 1
    at_once: int | None = None

    def parts(self, scheduled: Rows, excluded: npt.NDArray[np.bool_]) -> tuple[Rows, ...]:
        """Of a scheduled mini-batch, without the `excluded` samples (`[n]`)."""
        own = np.array_split(scheduled, self.count)[self.rank]
        size = self.at_once or max(1, len(own))
        cut = (own[start : start + size] for start in range(0, len(own), size))
        return tuple(rows for part in cut if len(rows := part[~excluded[part]]))


WHOLE = Slice()


def batches_per_epoch(n: int, batch_size: int) -> int:
    """The last mini-batch may be smaller."""
    return -(-n // batch_size)


def epoch_batches(
    n: int, batch_size: int, seed: int, epoch: int, excluded: npt.NDArray[np.bool_], own: Slice = WHOLE
) -> Iterator[Batch]:
    """The mini-batches of an epoch, without the `excluded` samples (`[n]`)."""
    order = numpy_generator(seed, "order", epoch).permutation(n)
    for start in range(0, n, batch_size):
        rows = order[start : start + batch_size]
        yield Batch(rows[~excluded[rows]], len(rows), own.parts(rows, excluded))


def augmentation(settings: AugmentSettings, n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Shift down, shift right, flip of every sample in an epoch, `[n, 3]`: the same for any subset that is trained
    on.
    """
    generator = numpy_generator(seed, "augmentation", epoch)
    shifts = generator.integers(-settings.shift, settings.shift + 1, (n, 2))
    return np.concatenate([shifts, generator.integers(0, 1 + settings.flip, (n, 1))], 1)


def npy_bytes(values: npt.NDArray[np.int16]) -> bytes:
    """An array as the content of a .npy file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def augment(images: Tensor, draws: npt.NDArray[np.int64]) -> Tensor:
    """Apply draws `[n, 3]` to images `[n, c, h, w]`; what a shift uncovers is zero."""
    if not draws.any():
        return images
    reach = int(np.abs(draws[:, :2]).max(initial=0))
    flips = torch.from_numpy(draws[:, 2].astype(bool))[:, None, None, None]
    images = torch.where(flips, images.flip(3), images)
    if reach == 0:
        return images
    height, width = images.shape[2:]
    padded = F.pad(images, (reach, reach, reach, reach))
    down = torch.from_numpy(reach - draws[:, :1]) + torch.arange(height)
    right = torch.from_numpy(reach - draws[:, 1:2]) + torch.arange(width)
    sample, channel = torch.arange(len(images))[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None]
    return padded[sample, channel, down[:, None, :, None], right[:, None, None, :]]
