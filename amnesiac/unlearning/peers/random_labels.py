"""Random labels: train on with all samples, those to forget under labels that mean nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from amnesiac.seeding import torch_generator
from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import Student, batches, epochs_of, student


def weights(start: Start, strength: float) -> Weights:
    """Descend the loss of all samples with the forgotten ones' labels drawn anew each epoch."""
    return relabelled(start, strength, lambda own: None)


def relabelled(start: Start, strength: float, after_step: Callable[[Student], None]) -> Weights:
    """The same, with something to do after each step."""
    everyone = range(len(start.data.labels))
    with student(start, strength) as own:
        for epoch in range(epochs_of(start)):
            for batch in batches(start, everyone, epoch, "all", drawn(start, epoch)):
                own.descend(own.loss(batch))
                after_step(own)
        return own.weights


def drawn(start: Start, epoch: int) -> Tensor:
    """Labels `[n]` in which each forgotten sample has another, uniformly drawn one; one class has nothing to draw."""
    labels, forget = start.data.labels.clone(), torch.tensor(list(start.forget))
    classes = max(2, int(labels.max()) + 1)
    shift = torch.randint(1, classes, (len(forget),), generator=torch_generator(start.seed, "random labels", epoch))
    labels[forget] = (labels[forget] + shift) % classes
    return labels


RANDOM_LABELS = Peer(
    "random-labels",
    "train on with all samples, the forgotten ones under random other labels",
    "Golatkar et al., Eternal sunshine of the spotless net (arXiv 1911.04933); Graves et al. (arXiv 2010.10981)",
    ("forget data", "retained data"),
    "learning rate, times that of training's last epoch",
    (0.01, 0.1, 0.3, 1.0, 2.0),
    weights,
)
