"""What peers that train share: mini-batches, the run's own optimiser, one step.

Equal terms for all of them: the run's own mini-batch size, optimiser (started afresh), clipping and augmentation, the
learning rate at which training's last epoch began (times the strength, where that is the strength), and a fifth of the
training's epochs, at least one: a method that takes longer leaves little reason not to retrain.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.seeding import derive_seed, numpy_generator
from amnesiac.training.batches import augment, augmentation
from amnesiac.training.loop import threads, weights_of
from amnesiac.training.optimizers import build_optimizer, learning_rate
from amnesiac.unlearning.peers.peer import Start, Weights

SHARE_OF_EPOCHS = 0.2


@dataclass(frozen=True)
class Batch:
    """positions `[n]` in the training split, inputs `[n, c, h, w]` and labels `[n]` on the run's device."""

    positions: Tensor
    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Student:
    """The model that is being changed, beginning with the original weights, and its optimiser."""

    start: Start
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def descend(self, loss: Tensor) -> None:
        """One optimiser step down the gradient of `loss`."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip = self.start.spec.training.clip_norm
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy with the batch's labels."""
        return F.cross_entropy(self.model(batch.inputs), batch.labels)

    @property
    def weights(self) -> Weights:
        """A copy of the state dict."""
        return weights_of(self.model)


@contextmanager
def student(start: Start, factor: float) -> Iterator[Student]:
    """A student in training mode whose learning rate is `factor` times that of training's last epoch.

    Inside the block: the run's number of threads, and torch's draws (dropout) seeded by the start.
    """
    training = start.spec.training
    base = learning_rate(training.optimizer.lr, training.schedule, training.epochs - 1, training.epochs)
    model = loaded(start, start.original).train()
    settings = training.optimizer.model_copy(update={"lr": base * factor})
    with threads(training.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(start.seed, "peer", "forward"))
        yield Student(start, model, build_optimizer(settings, model.parameters()))


def teacher(start: Start, weights: Mapping[str, Tensor]) -> nn.Module:
    """A model that is only asked: evaluation mode, no gradients."""
    return loaded(start, weights).eval().requires_grad_(False)


def loaded(start: Start, weights: Mapping[str, Tensor]) -> nn.Module:
    """A model of the run with these weights, on the run's device."""
    model = start.factory()
    model.load_state_dict(dict(weights))
    return model.to(start.spec.training.device)


def retained(start: Start) -> list[int]:
    """Positions of all samples that stay, ascending."""
    keep = np.ones(len(start.data.labels), bool)
    keep[list(start.forget)] = False
    return [int(row) for row in np.flatnonzero(keep)]


def epochs_of(start: Start) -> int:
    """Passes over the data that a peer has."""
    return max(1, round(SHARE_OF_EPOCHS * start.spec.training.epochs))


def batches(start: Start, rows: Sequence[int], epoch: int, name: str, labels: Tensor | None = None) -> Iterator[Batch]:
    """The samples `rows` once in mini-batches, in an order drawn for `name`; labels: `[n]` in place of the data's."""
    training, own = start.spec.training, start.data.labels if labels is None else labels
    order = numpy_generator(start.seed, "peer", name, epoch).permutation(np.asarray(rows, np.int64))
    draws = augmentation(training.augment, len(own), start.seed, epoch)
    for first in range(0, len(order), training.batch_size):
        part = order[first : first + training.batch_size]
        positions = torch.from_numpy(part)
        inputs = augment(start.data.inputs[positions], draws[part]).to(training.device)
        yield Batch(positions, inputs, own[positions].to(training.device))
