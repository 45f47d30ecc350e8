"""The training loop: one for the original run with capture, for retraining without the forget set, and for repair."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.progress import Progress, silent
from amnesiac.seeding import derive_seed
from amnesiac.settings import TrainingSettings
from amnesiac.training.batches import Batch, Rows, Slice, augment, augmentation, batches_per_epoch, epoch_batches
from amnesiac.training.group import ALONE, Group
from amnesiac.training.optimizers import learning_rate
from amnesiac.training.spec import EpochRecord, StateDict


class TrainingData(Protocol):
    """Inputs `[n, c, h, w]` float32 and labels `[n]` int64; `amnesiac.data.Split` is one."""

    @property
    def inputs(self) -> Tensor:
        """Scaled inputs."""
        ...

    @property
    def labels(self) -> Tensor:
        """Class indices."""
        ...


class BatchRecorder(Protocol):
    """What the loop needs of a recorder of contributions."""

    def batch(self, rows: npt.NDArray[np.int64]) -> AbstractContextManager[None]:
        """Record one forward and backward pass."""
        ...

    def summed(self) -> None:
        """The gradients are now those of all processes."""
        ...


@dataclass(frozen=True)
class Loop:
    """A run of the loop over `data`.

    excluded:   samples left out, `[n]`
    max_steps:  stop each epoch after this many steps, None for whole epochs
    group:      the processes that train together, each its slice of every mini-batch
    device:     where this process computes, None: as the settings say
    """

    settings: TrainingSettings
    seed: int
    data: TrainingData
    excluded: npt.NDArray[np.bool_]
    label: str = "train"
    progress: Progress = silent
    max_steps: int | None = None
    group: Group = ALONE
    device: str | None = None

    @property
    def place(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self.device or self.settings.device)

    @property
    def slice(self) -> Slice:
        """What this process computes of a mini-batch."""
        return Slice(self.group.rank, self.group.count, self.settings.micro_batch)

    @property
    def steps_per_epoch(self) -> int:
        """Scheduled optimiser steps an epoch."""
        return batches_per_epoch(len(self.data.labels), self.settings.batch_size)


def run_epochs(
    loop: Loop,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: range,
    recorder: BatchRecorder | None = None,
    after_epoch: Callable[[EpochRecord], None] = lambda record: None,
    at_midpoint: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train over `epochs`; `at_midpoint` is called halfway through each.

    Deterministic given seed, thread count and library build.
    """
    with threads(loop.settings.threads), torch.random.fork_rng(devices=[]):
        model.train()
        for epoch in epochs:
            after_epoch(_run_epoch(loop, model, optimizer, epoch, recorder, at_midpoint))


def _run_epoch(
    loop: Loop,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    recorder: BatchRecorder | None,
    at_midpoint: Callable[[int], None],
) -> EpochRecord:
    started, loss, correct, seen = time.perf_counter(), 0.0, 0, 0
    n, draws = len(loop.data.labels), augmentation(loop.settings.augment, len(loop.data.labels), loop.seed, epoch)
    plan = epoch_batches(n, loop.settings.batch_size, loop.seed, epoch, loop.excluded, loop.slice)
    for k, batch in enumerate(islice(plan, loop.max_steps)):
        if k == loop.steps_per_epoch // 2:
            at_midpoint(epoch)
        rate = _set_rate(loop, optimizer, epoch, k)
        _seed_forward(loop, epoch, k)
        batch_loss, batch_correct = _step(loop, model, optimizer, batch, draws, recorder)
        loss, correct, seen = loss + batch_loss, correct + batch_correct, seen + sum(map(len, batch.parts))
        loop.progress(loop.label, epoch * loop.steps_per_epoch + k + 1, loop.settings.epochs * loop.steps_per_epoch)
    loss, correct, seen = (sum(own) for own in zip(*loop.group.gathered((loss, correct, seen)), strict=True))
    seconds = time.perf_counter() - started
    return EpochRecord(epoch + 1, loss / max(seen, 1), correct / max(seen, 1), rate, seconds)


def _step(
    loop: Loop,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    draws: npt.NDArray[np.int64],
    recorder: BatchRecorder | None,
) -> tuple[float, int]:
    """One optimiser step; a mini-batch whose samples are all left out is a step with a zero gradient."""
    _zero_gradients(model)
    loss, correct = 0.0, 0
    for rows in batch.parts:
        with recorder.batch(rows) if recorder else nullcontext():
            part_loss, part_correct = _backward(loop, model, rows, batch.scheduled, draws)
        loss, correct = loss + part_loss, correct + part_correct
    if loop.group.count > 1:
        loop.group.sum_gradients(model)
        if recorder:
            recorder.summed()
    if loop.settings.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), loop.settings.clip_norm)
    optimizer.step()
    return loss, correct


def _backward(
    loop: Loop, model: nn.Module, chosen: Rows, scheduled: int, draws: npt.NDArray[np.int64]
) -> tuple[float, int]:
    """Summed loss over the *scheduled* mini-batch size, whatever part of it is `chosen`; returns summed loss and number
    of right answers.
    """
    rows = torch.from_numpy(chosen)
    inputs = augment(loop.data.inputs[rows], draws[chosen]).to(loop.place)
    labels = loop.data.labels[rows].to(loop.place)
    with _precision(loop):
        logits = model(inputs)
        loss = F.cross_entropy(logits, labels, reduction="sum")
    (loss / scheduled).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), int((logits.detach().argmax(1) == labels).sum())


def _precision(loop: Loop) -> AbstractContextManager[object]:
    """Autocast where the settings ask for it. bfloat16 has float32's range: no loss scale is needed."""
    if loop.settings.precision == "float32":
        return nullcontext()
    return torch.autocast(loop.place.type, torch.bfloat16)


def _seed_forward(loop: Loop, epoch: int, k: int) -> None:
    """Seed what a model draws in its forward pass; on the CPU its generator alone, since `torch.manual_seed` formats a
    traceback for CUDA at every call: a quarter of a small model's training time. Every process draws its own.
    """
    own = [loop.group.rank] if loop.group.rank else []
    seed = derive_seed(loop.seed, "forward", epoch, k, *own)
    if loop.place.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _set_rate(loop: Loop, optimizer: torch.optim.Optimizer, epoch: int, k: int) -> float:
    position = epoch + k / loop.steps_per_epoch
    rate = learning_rate(loop.settings.optimizer.lr, loop.settings.schedule, position, loop.settings.epochs)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _zero_gradients(model: nn.Module) -> None:
    """Zeros, not None: an optimiser skips a parameter whose gradient is None, and its momentum would stand still."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.zero_()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights_of(model: nn.Module) -> StateDict:
    """A copy of the state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
