"""Settled deltas of wide models, which stay sums of outer products until they have the few that a row keeps.

The weights of eq. (2) are a few outer products themselves (curvature/thin.py), so that W_s * (l r^T) is as many. In
place of what settling.py does for smaller models, where a delta or a matrix of weights fits in the processor's cache.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.layers import Factors
from amnesiac.curvature.thin import ThinWeights

Few = Callable[[int | None], ThinWeights | None]
CACHE = 6 << 20  # bytes that stay in a processor's cache


def settle_thinly(
    few: Few, finish: Callable[[Factors], Factors | Tensor], by_class: bool, shares: Factors,
    keys: npt.NDArray[np.int64],
) -> Factors | None:  # fmt: skip
    """What `finish` keeps of settled deltas, a few samples at a time; None where some weights aren't few enough.

    few:    weights of all segments for a left-out class, or None
    shares: of the visits, left `[n, visits, k, d_out]`, right `[n, visits, k, d_in]`
    keys:   segment of each visit `[n, visits]`, by class with the class as a last column

    Coordinates that none of the samples has anything in are left out until the end, where they are many.
    """
    labels, owners = np.unique(keys[:, -1] if by_class else np.full(len(keys), -1), return_inverse=True)
    found = [few(int(label) if by_class else None) for label in labels]
    weights, visits = [own for own in found if own is not None], shares.left.shape[1]
    if len(weights) < len(found):
        return None
    seen = _seen(shares.right)
    right, weights = shares.right[..., seen], [own.columns(seen) for own in weights]
    numbers = visits * shares.left.shape[2] * max(own.rank for own in weights) * (shares.left.shape[3] + len(seen))
    size, parts = max(1, CACHE // (4 * numbers)), []
    for start in range(0, len(keys), size):
        rows = slice(start, start + size)
        own = Factors(shares.left[rows], right[rows])
        parts.append(finish(_weighed(weights, own, owners[rows], keys[rows, :visits])))
    return _spread([part for part in parts if isinstance(part, Factors)], seen, shares.right.shape[3])


def _spread(parts: Sequence[Factors], seen: Tensor, width: int) -> Factors:
    """All parts, the coordinates that were left out put back."""
    left, right = torch.cat([part.left for part in parts]), torch.cat([part.right for part in parts])
    spread = torch.zeros(*right.shape[:2], width)
    spread[..., seen] = right
    return Factors(left, spread)


def _seen(right: Tensor) -> Tensor:
    """Coordinates in which some factors `[n, visits, rank, d]` have something; all unless a quarter is left out."""
    seen = torch.nonzero(right.flatten(0, 2).any(0)).flatten()
    return seen if len(seen) < 0.75 * right.shape[3] else torch.arange(right.shape[3])


def _weighed(
    weights: Sequence[ThinWeights], shares: Factors, owners: npt.NDArray[np.int64], segments: npt.NDArray[np.int64]
) -> Factors:
    """W_s * share of all visits as outer products side by side, `[n, ..., d]`, not summed.

    owners: which of the weights is each sample's, `[n]`;  segments: of each visit, `[n, visits]`
    """
    parts = []
    for visit in range(segments.shape[1]):
        own = _of_samples(weights, np.stack([owners, segments[:, visit]], 1))
        left, right = shares.left[:, visit, :, None], shares.right[:, visit, :, None]
        parts.append(((left * own.left[:, None]).flatten(1, 2), (right * own.right[:, None]).flatten(1, 2)))
    return Factors(*(torch.cat(side, 1) for side in zip(*parts, strict=True)))


def _of_samples(weights: Sequence[ThinWeights], places: npt.NDArray[np.int64]) -> Factors:
    """Weights of each sample's owner and segment `[n, 2]` as outer products `[n, rank, d]`; `[1, ...]` if all share."""
    chosen = (places[:1] if (places == places[0]).all() else places).tolist()
    parts = [weights[owner].of(segment) for owner, segment in chosen]
    sides = [part.left for part in parts], [part.right for part in parts]
    return Factors(*(torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in sides))
