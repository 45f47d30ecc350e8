"""Gradient ascent on the forget set: what made the samples fit is run backwards."""

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import batches, student

PASSES = 5


def weights(start: Start, strength: float) -> Weights:
    """Climb the loss of the forget set, five passes over it (as in SalUn's comparison, arXiv 2310.12508)."""
    with student(start, strength) as own:
        for epoch in range(PASSES):
            for batch in batches(start, start.forget, epoch, "forget"):
                own.descend(-own.loss(batch))
        return own.weights


GRADIENT_ASCENT = Peer(
    "gradient-ascent",
    "climb the forget set's loss",
    "Thudi et al., Unrolling SGD (arXiv 2109.13398); Graves et al., Amnesiac machine learning (arXiv 2010.10981)",
    ("forget data",),
    "learning rate, times that of training's last epoch",
    (0.001, 0.01, 0.1, 0.3, 0.6),
    weights,
)
