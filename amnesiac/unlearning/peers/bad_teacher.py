"""Bad teacher: on the forget set the student learns from a network that knows nothing, elsewhere from the original."""

import numpy as np
import torch
import torch.nn.functional as F

from amnesiac.seeding import numpy_generator
from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import batches, epochs_of, retained, student, teacher

RETAINED = 0.3
"""Share of the retained samples that are used, as in the paper; the temperature is 1."""


def weights(start: Start, strength: float) -> Weights:
    """Descend KL(teacher || student), the teacher of a forgotten sample being the initial weights: the incompetent
    one, of the same architecture.
    """
    competent, incompetent = teacher(start, start.original), teacher(start, start.initial)
    forgotten = torch.zeros(len(start.data.labels), dtype=torch.bool)
    forgotten[list(start.forget)] = True
    with student(start, strength) as own:
        for epoch in range(epochs_of(start)):
            for batch in batches(start, _used(start), epoch, "teachers"):
                gone = forgotten[batch.positions].to(batch.inputs.device)[:, None]
                with torch.no_grad():
                    target = torch.where(gone, incompetent(batch.inputs), competent(batch.inputs)).log_softmax(1)
                found = own.model(batch.inputs).log_softmax(1)
                own.descend(F.kl_div(found, target, reduction="batchmean", log_target=True))
        return own.weights


def _used(start: Start) -> list[int]:
    """The forget set and some of the rest, drawn once."""
    rest = np.asarray(retained(start), np.int64)
    count = round(RETAINED * len(rest))
    return [*start.forget, *numpy_generator(start.seed, "bad teacher").choice(rest, count, replace=False).tolist()]


BAD_TEACHER = Peer(
    "bad-teacher",
    "learn from an untrained network on the forget set, from the original on retained samples",
    "Chundawat et al., Can bad teaching induce forgetting? (arXiv 2205.08096)",
    ("forget data", "retained data"),
    "learning rate, times that of training's last epoch",
    (0.03, 0.1, 0.3, 1.0, 3.0),
    weights,
)
