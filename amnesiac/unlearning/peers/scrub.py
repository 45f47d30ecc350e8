"""SCRUB: a student that leaves its teacher, the original, on the forget set and stays with it elsewhere."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import Batch, Student, batches, epochs_of, retained, student, teacher

GAMMA, ALPHA, TEMPERATURE = 0.99, 0.001, 4.0
"""Weights of cross-entropy and of distillation on retained samples, and its temperature: the authors' own
(github.com/meghdadk/SCRUB)."""
QUARTERS = 4


def weights(start: Start, strength: float) -> Weights:
    """Passes over the retained samples descend GAMMA cross-entropy + ALPHA KL(teacher || student); in between, passes
    over the forget set climb KL(teacher || student). It ends with a descent, as in the paper.

    The paper has a forget pass an epoch and several epochs; with fewer (`epochs_of`) there is one each quarter of an
    epoch. A descent comes first, because the student begins as its teacher, where KL has no gradient. Left out:
    SCRUB+R, which picks a checkpoint by a validation set made for membership inference.
    """
    original, rest = teacher(start, start.original), retained(start)
    with student(start, strength) as own:
        quarters = [part for epoch in range(epochs_of(start)) for part in _quarters(start, rest, epoch)]
        for k, quarter in enumerate(quarters):
            for batch in batches(start, start.forget, k, "forget") if k else ():
                own.descend(-divergence(own, original, batch))
            for batch in quarter:
                own.descend(GAMMA * own.loss(batch) + ALPHA * divergence(own, original, batch))
        return own.weights


def _quarters(start: Start, rest: list[int], epoch: int) -> list[list[Batch]]:
    kept = list(batches(start, rest, epoch, "retained"))
    size = -(-len(kept) // QUARTERS)
    return [kept[first : first + size] for first in range(0, len(kept), size)]


def divergence(own: Student, original: nn.Module, batch: Batch) -> Tensor:
    """Mean KL(teacher || student) at the temperature, times its square, which keeps the gradient's size."""
    with torch.no_grad():
        target = (original(batch.inputs) / TEMPERATURE).log_softmax(1)
    found = (own.model(batch.inputs) / TEMPERATURE).log_softmax(1)
    return F.kl_div(found, target, reduction="batchmean", log_target=True) * TEMPERATURE**2


SCRUB = Peer(
    "scrub",
    "leave the original's predictions on the forget set, keep them elsewhere",
    "Kurmanji et al., Towards unbounded machine unlearning (arXiv 2302.09880)",
    ("forget data", "retained data"),
    "learning rate, times that of training's last epoch",
    (0.001, 0.003, 0.01, 0.03, 0.1),
    weights,
)
