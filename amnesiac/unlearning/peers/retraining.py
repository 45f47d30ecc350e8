"""Exact retraining: the run again, without the forget set. What all others are measured against."""

from amnesiac.training import retrain_without
from amnesiac.unlearning.peers.peer import Peer, Start, Weights


def weights(start: Start, strength: float) -> Weights:
    """Same start, schedule, mini-batches and draws; there is nothing to choose, `strength` changes nothing."""
    return retrain_without(start.spec, start.factory, start.data, start.forget).weights


RETRAINING = Peer(
    "retrained",
    "train again without the forget set",
    "the definition of unlearning: Cao and Yang (2015), Bourtoule et al. (arXiv 1912.03817)",
    ("the whole run",),
    "none",
    (),
    weights,
)
