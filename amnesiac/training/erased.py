"""The guard before training: an erased sample's zeros are no data."""

from collections.abc import Sequence

import numpy as np

from amnesiac.errors import KeyDestroyed
from amnesiac.training.loop import TrainingData

_AGAIN = "Run `amnesiac prepare` again: a data set without them can be trained on"
_FORGET = "Add them to the samples to forget: whoever was erased was forgotten before"


def refuse_erased(data: TrainingData, forget: Sequence[int] | None = None) -> None:
    """Raise KeyDestroyed when `data` holds erased samples that aren't at one of the positions `forget`.

    forget: None where nothing is left out, as when the original is trained. Only what comes from a prepared data set
    can hold erased samples: `Split.erased`, bool `[n]`.
    """
    erased = np.flatnonzero(getattr(data, "erased", np.zeros(0, bool)))
    trained = np.setdiff1d(erased, np.asarray(forget or (), np.int64))
    if len(trained):
        raise KeyDestroyed(
            f"{len(trained)} of {len(data.labels)} samples to train on were erased, the first at position "
            f"{trained[0]}: their keys were destroyed and there is nothing to learn from. "
            f"{_AGAIN if forget is None else _FORGET}"
        )
