"""Selective synaptic dampening: shrink the weights that matter more to the forget set than to all data."""

import torch

from amnesiac.training.loop import threads
from amnesiac.unlearning.peers.fisher import diagonal_fisher
from amnesiac.unlearning.peers.peer import Peer, Start, Weights

DAMPENING = 1.0
"""lambda: the authors' choice for CIFAR (github.com/if-loops/selective-synaptic-dampening)."""


def weights(start: Start, strength: float) -> Weights:
    """theta_i <- min(lambda I_D,i / I_F,i, 1) theta_i where I_F,i > alpha I_D,i; all others keep their bits.

    I_F, I_D: diagonal Fisher of the forget set and of all data; alpha = `strength`. I_D may be kept from training, so
    retained data isn't needed.
    """
    assert start.importances is not None
    with threads(start.spec.training.threads):
        own = diagonal_fisher(start.factory, start.original, start.data, start.forget)
    found = {name: value.clone() for name, value in start.original.items()}
    for name, importance in own.items():
        everyone = start.importances[name]
        factor = (DAMPENING * everyone / importance).clamp_max(1.0)
        found[name] = torch.where(importance > strength * everyone, factor * found[name], found[name])
    return found


SYNAPTIC_DAMPENING = Peer(
    "ssd",
    "shrink weights that are more important to the forget set than to all data",
    "Foster et al., Fast machine unlearning through selective synaptic dampening (arXiv 2308.07707)",
    ("forget data", "importances"),
    "alpha: how many times more important; smaller is stronger",
    (10.0, 20.0, 35.0, 60.0, 100.0),
    weights,
)
