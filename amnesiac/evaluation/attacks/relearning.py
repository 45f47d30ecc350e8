"""Relearn time: how many optimiser steps on the forget set bring a model to where the original was.

A model that still holds what it seemed to forget relearns it faster than one that never knew it. The ratio of the
unlearned model's steps to the retrained one's is the anamnesis index of Chundawat et al. (2022, arXiv 2201.05629),
after the relearn time of Golatkar et al. (2020, arXiv 1911.04933): about 1 is right, far below 1 means a hidden
residue, far above 1 that the model was pushed further than retraining goes (which tells as well).
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from amnesiac.errors import InputError
from amnesiac.seeding import torch_generator


@dataclass(frozen=True)
class Relearning:
    """How the forget set is learnt again: SGD on mini-batches of it, until its mean loss is at most `target_loss`.

    target_loss:  usually the original model's on the forget set, times 1.1
    max_steps:    after so many steps the search ends
    """

    target_loss: float
    lr: float = 0.05
    momentum: float = 0.0
    batch_size: int = 64
    max_steps: int = 500
    seed: int = 0


def relearn_steps(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, how: Relearning
) -> int:
    """Optimiser steps until the mean cross entropy on all of `inputs` `[n, c, h, w]` is at most the target.

    0 where it is there already, `max_steps` where it doesn't come there. `model` stays as it is. Same draws for the
    same seed, so that two models see the same mini-batches. Raises InputError for no samples.
    """
    losses = _losses(model, weights, inputs, labels, how)
    return next((step for step, loss in enumerate(losses) if loss <= how.target_loss), how.max_steps)


def relearn_curve(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, how: Relearning
) -> Tensor:
    """The mean loss after 0, 1 ... max_steps - 1 steps, float64 `[max_steps]`: `steps_to` reads it at any target.

    For ensembles, whose target is known only when all members are trained.
    """
    return torch.tensor(list(_losses(model, weights, inputs, labels, how)), dtype=torch.float64)


def steps_to(curve: Tensor, target_loss: float) -> int:
    """The first step of a curve `[max_steps]` that is at the target, its length where none is."""
    there = torch.nonzero(curve <= target_loss)
    return int(there[0]) if len(there) else len(curve)


def relearn_ratio(unlearned_steps: float, retrained_steps: float) -> float:
    """Steps of the unlearned over those of the retrained model (or means over several); 1 where neither needs any.

    Infinite where only the retrained model needs none: there was nothing to forget, and the unlearned model lost it.
    """
    if retrained_steps == 0:
        return 1.0 if unlearned_steps == 0 else math.inf
    return unlearned_steps / retrained_steps


def _losses(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, how: Relearning
) -> Iterator[float]:
    """The loss before each step."""
    if len(labels) == 0:
        raise InputError("an empty forget set can't be learnt again: pass the forgotten samples")
    model = copy.deepcopy(model)
    model.load_state_dict(dict(weights))
    model.eval()  # no dropout, and statistics stay: the two models differ in their weights alone
    optimizer = torch.optim.SGD(model.parameters(), lr=how.lr, momentum=how.momentum)
    generator, order = torch_generator(how.seed, "relearning"), torch.empty(0, dtype=torch.int64)
    for _ in range(how.max_steps):
        with torch.no_grad():
            yield float(functional.cross_entropy(model(inputs), labels))
        if len(order) == 0:
            order = torch.randperm(len(labels), generator=generator)
        batch, order = order[: how.batch_size], order[how.batch_size :]
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
