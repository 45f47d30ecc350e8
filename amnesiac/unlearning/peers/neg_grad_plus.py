"""NegGrad+: down the loss of what is retained and up that of what is forgotten, in one step."""

from itertools import cycle

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import Batch, batches, epochs_of, retained, student


def weights(start: Start, strength: float) -> Weights:
    """Minimise (1 - w) loss(retained) - w loss(forget), w = strength / (1 + strength), so that w stays below 1.

    Each mini-batch of retained samples meets the next one of forgotten samples, over and over, as in the authors' code
    (github.com/meghdadk/SCRUB, train_negrad).
    """
    share = strength / (1.0 + strength)
    with student(start, 1.0) as own:
        for epoch in range(epochs_of(start)):
            forgotten: list[Batch] = list(batches(start, start.forget, epoch, "forget"))
            kept = batches(start, retained(start), epoch, "retained")
            for batch, gone in zip(kept, cycle(forgotten), strict=False):
                own.descend((1.0 - share) * own.loss(batch) - share * own.loss(gone))
        return own.weights


NEG_GRAD_PLUS = Peer(
    "neggrad-plus",
    "descend the retained loss and climb the forget set's, together",
    "Kurmanji et al., Towards unbounded machine unlearning (arXiv 2302.09880)",
    ("forget data", "retained data"),
    "weight of the forget set's loss against the retained one",
    (0.001, 0.003, 0.006, 0.01, 0.02),
    weights,
)
