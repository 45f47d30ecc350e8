"""l1-sparse: fine-tuning with a penalty on the size of all weights: what retained data doesn't hold up goes."""

import torch

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import batches, epochs_of, retained, student


def weights(start: Start, strength: float) -> Weights:
    """Descend the loss of the retained samples + gamma ||theta||_1, gamma falling linearly from `strength` to 0, the
    best of the authors' schedules (github.com/OPTML-Group/Unlearn-Sparse, FT_l1).
    """
    epochs = epochs_of(start)
    with student(start, 1.0) as own:
        for epoch in range(epochs):
            gamma = strength * (1.0 - epoch / epochs)
            for batch in batches(start, retained(start), epoch, "retained"):
                size = torch.stack([p.abs().sum() for p in own.model.parameters() if p.requires_grad]).sum()
                own.descend(own.loss(batch) + gamma * size)
        return own.weights


L1_SPARSE = Peer(
    "l1-sparse",
    "fine-tune on retained samples with a penalty on the sum of all |weights|",
    "Jia et al., Model sparsity can simplify machine unlearning (arXiv 2304.04934)",
    ("retained data",),
    "gamma, the penalty's weight when it begins",
    (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    weights,
)
