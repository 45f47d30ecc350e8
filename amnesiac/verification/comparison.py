"""Published weights against those that the ledger gives, parameter by parameter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from amnesiac.verification.decoding import Floats
from amnesiac.verification.tensors import Array, Tensors

LISTED = 10


@dataclass(frozen=True)
class Difference:
    """By parameter, in those that aren't the same.

    identical: no weight differs (the sign of a zero aside);  largest: difference, 0.0 when identical
    differing: weights that are further off than the ledger's codec allows (0 for all codecs but masked)
    wrong:     tensors that are missing, unexpected, or of another shape or type than the original's, in words
    """

    identical: bool
    largest: float
    differing: Mapping[str, int]
    wrong: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """What is wrong, for people."""
        if not self.differing:
            return self.wrong
        listed = ", ".join(f"{name} ({count})" for name, count in list(self.differing.items())[:LISTED])
        more = f" and {len(self.differing) - LISTED} more parameters" if len(self.differing) > LISTED else ""
        total, largest = sum(self.differing.values()), f"{self.largest:.3g}"
        return (*self.wrong, f"{total} weights differ from what the ledger gives, by up to {largest}: {listed}{more}")


def expected_weights(base: Tensors, correction: Tensors, surviving: Mapping[str, Floats]) -> dict[str, Floats]:
    """base + correction - surviving rows, float64 by parameter; exact, since all are multiples of 2^-40."""
    return {name: base[name] + correction.get(name, np.zeros(())) - surviving[name] for name in base}


def compare(published: Tensors, trained: Tensors, expected: Mapping[str, Floats], slack: float) -> Difference:
    """Parameters against `expected`, rounded to their own precision; all other tensors against the trained model's.

    slack: how far `expected` itself may be off
    """
    wrong = tuple(_shapes(published, trained))
    found = Difference(not wrong, 0.0, {}, wrong)
    for name in sorted(set(published) & set(trained)):
        ours, theirs = published[name], expected.get(name, trained[name])
        if ours.shape == theirs.shape and ours.dtype == trained[name].dtype:
            found = _joined(found, name, ours, theirs, slack if name in expected else 0.0)
    return found


def _shapes(published: Tensors, trained: Tensors) -> list[str]:
    wrong = [f"the published weights lack {name!r}" for name in sorted(set(trained) - set(published))]
    wrong += [
        f"the published weights hold {name!r}, the original doesn't" for name in sorted(set(published) - set(trained))
    ]
    for name in sorted(set(published) & set(trained)):
        ours, theirs = (f"{t[name].dtype} {t[name].shape}" for t in (published, trained))
        wrong += [f"{name!r} is {ours}, in the original {theirs}"] * (ours != theirs)
    return wrong


def _joined(found: Difference, name: str, published: Array, expected: Array, slack: float) -> Difference:
    """`found` with one more tensor; weights that aren't numbers differ from everything."""
    exact = expected.astype(published.dtype)
    same = published == exact
    within = same if not slack else _between(expected - slack, published, expected + slack)
    count = int((~within).sum())
    return replace(
        found,
        identical=found.identical and bool(same.all()),
        largest=max(found.largest, _largest(published, exact)),
        differing={**found.differing, name: count} if count else found.differing,
    )


def _between(low: Array, published: Array, high: Array) -> Array:
    """Rounding keeps the order, so what lies between the bounds does so after rounding."""
    return (low.astype(published.dtype) <= published) & (published <= high.astype(published.dtype))


def _largest(published: Array, expected: Array) -> float:
    """The largest difference; of weights that aren't numbers the largest number there is."""
    apart: npt.NDArray[np.float64] = np.abs(published.astype(np.float64) - expected.astype(np.float64))
    huge = float(np.finfo(np.float64).max)
    return float(np.nan_to_num(apart, nan=huge, posinf=huge).max(initial=0.0))
