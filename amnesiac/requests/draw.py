"""Random requests, for experiments: drawn once, when they are made."""

from typing import TYPE_CHECKING

from amnesiac.errors import RequestError
from amnesiac.keys import erased_mask
from amnesiac.requests.request import RequestDraft
from amnesiac.seeding import numpy_generator

if TYPE_CHECKING:
    import pandas as pd


def draw_random(
    index: "pd.DataFrame",
    seed: int,
    *,
    count: int | None = None,
    fraction: float | None = None,
    request_id: str | None = None,
) -> RequestDraft:
    """Draw `count` samples, or a `fraction` in (0, 1), of the train split without replacement.

    The draw depends on the seed, the number and the set of train ids, not on their order. The draft holds the
    ids drawn, so nothing is drawn again later; its reason tells the draw. Erased samples aren't drawn. `index` is the
    prepared data set's (see `resolve`). Raises RequestError unless 1 to n_train - 1 samples are asked for.
    """
    held = sorted(index.loc[(index["split"] == "train") & ~erased_mask(index), "sample_id"].astype(str))
    size = _size(len(held), count, fraction)
    drawn = numpy_generator(seed, "random request", size).choice(len(held), size=size, replace=False)
    values = tuple(sorted(held[k] for k in drawn.tolist()))
    return RequestDraft("random", values, request_id, f"random draw of {size} of {len(held)} samples, seed {seed}")


def _size(held: int, count: int | None, fraction: float | None) -> int:
    if count is not None and fraction is None:
        size = count
    elif fraction is not None and count is None:
        # At least one: a small fraction of a small data set still means "some".
        size = max(1, round(fraction * held)) if 0.0 < fraction < 1.0 else 0
    else:
        raise RequestError("a random draw needs either a count or a fraction, not both and not neither")
    if not 1 <= size < held:
        asked = f"count {count}" if fraction is None else f"fraction {fraction}"
        raise RequestError(
            f"can't draw {asked} of {held} train samples: "
            f"ask for 1 to {held - 1} samples, or a fraction between 0 and 1"
        )
    return size
