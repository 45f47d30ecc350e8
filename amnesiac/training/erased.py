"""The guard before training: an erased sample's zeros are no data."""

from collections.abc import Sequence

import numpy as np

from amnesiac.errors import KeyDestroyed
from amnesiac.training.loop import TrainingData


def refuse_erased(data: TrainingData, left_out: Sequence[int], remedy: str) -> None:
    """Raise KeyDestroyed when `data` holds erased samples beside those at the positions `left_out`.

    Only what comes from a prepared data set can hold any: `Split.erased`, bool `[n]`.
    """
    erased = np.flatnonzero(getattr(data, "erased", np.zeros(0, bool)))
    trained = np.setdiff1d(erased, np.asarray(left_out, np.int64))
    if len(trained):
        raise KeyDestroyed(
            f"{len(trained)} of {len(data.labels)} samples to train on were erased, the first at position "
            f"{trained[0]}: their keys were destroyed and there is nothing to learn from. {remedy}"
        )
