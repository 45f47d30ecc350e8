"""Fine-tuning on what is retained, in the hope that the rest fades: the simplest thing that people do."""

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import batches, epochs_of, retained, student


def weights(start: Start, strength: float) -> Weights:
    """Descend the loss of the retained samples."""
    with student(start, strength) as own:
        for epoch in range(epochs_of(start)):
            for batch in batches(start, retained(start), epoch, "retained"):
                own.descend(own.loss(batch))
        return own.weights


FINE_TUNE = Peer(
    "fine-tune",
    "train on with the retained samples",
    "Warnecke et al., Machine unlearning of features and labels (arXiv 2108.11577); Golatkar et al. (arXiv 1911.04933)",
    ("retained data",),
    "learning rate, times that of training's last epoch",
    (0.3, 0.6, 1.0, 1.7, 3.0),
    weights,
)
