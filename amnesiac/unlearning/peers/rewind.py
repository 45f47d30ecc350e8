"""R2D, rewind to delete: go back to a checkpoint of the run and train from there on without the forget set."""

import numpy as np

from amnesiac.training.loop import Loop, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer
from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import loaded


def weights(start: Start, strength: float) -> Weights:
    """Train the last `strength` of the run's epochs again (at least one) from the newest checkpoint that is old enough.

    Mini-batches, rates and draws are the run's own, which is kinder than the paper (it only asks for gradient descent
    on retained data); the optimiser's state isn't kept and starts anew. The noise that certifies isn't added.
    """
    spec = start.spec
    wanted = spec.training.epochs - max(1, round(min(1.0, strength) * spec.training.epochs))
    old_enough = [epoch for epoch in start.checkpoints if epoch <= wanted]
    first = max(old_enough, default=0)
    model = loaded(start, start.checkpoints[first] if old_enough else start.initial)
    excluded = np.zeros(len(start.data.labels), bool)
    excluded[list(start.forget)] = True
    loop = Loop(spec.training, spec.seed, start.data, excluded, "rewind")
    optimizer = build_optimizer(spec.training.optimizer, model.parameters())
    run_epochs(loop, model, optimizer, range(first, spec.training.epochs))
    return weights_of(model)


REWIND = Peer(
    "r2d",
    "rewind to a checkpoint, train on from there without the forget set",
    "Mu and Klabjan, Rewind-to-delete (arXiv 2409.09778)",
    ("retained data", "checkpoints"),
    "share of the training's epochs that is done again, at most half",
    (0.1, 0.2, 0.3, 0.4, 0.5),
    weights,
)
