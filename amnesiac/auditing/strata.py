"""Which sets an audit forgets: at random, the most and the least memorised, and mislabelled samples.

A random forget set is nearly degenerate: most samples are learnt from others like them, and leaving them out changes
nothing. Memorisation is what they alone teach (Feldman and Zhang, 2020, arXiv 2008.03703; as a stratum of unlearning,
Zhao et al., 2024, arXiv 2406.01257):

    mem(x) = mean p_y(x) of models trained with x  -  mean p_y(x) of models trained without it,

estimated from a few trainings that each leave out another quarter, with the probability of the label in the place of
being right (Feldman's estimator needs thousands of models for that).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amnesiac.auditing.setup import ForgetSet, Member, Setup
from amnesiac.errors import InputError
from amnesiac.seeding import derive_seed, numpy_generator

RANDOM, MOST, LEAST, MISLABELLED = "random", "most memorised", "least memorised", "mislabelled"
STRATA = (RANDOM, MOST, LEAST, MISLABELLED)
PARTS = 4
SMALLEST = 5
RETAIN = 500


def left_out_members(setup: Setup, models: int) -> list[Member]:
    """Models of which each leaves out a quarter; every `PARTS` of them leave out each sample once.

    Raises InputError where a sample would never be left out.
    """
    if models < PARTS:
        raise InputError(f"memorisation needs at least {PARTS} models, so that each sample is left out once: {models}")
    found = []
    for number in range(models):
        order = numpy_generator(setup.seed, "audit parts", number // PARTS).permutation(len(setup.train))
        part = np.sort(np.array_split(order, PARTS)[number % PARTS])
        seed = seed_of(setup, "memorisation", number)
        found.append(Member("left-out", "memorisation", number, seed, left_out=tuple(part.tolist())))
    return found


def memorisation(probabilities: Tensor, left_out: Tensor) -> Tensor:
    """Scores float64 `[n]` from p_y `[models, n]` and whether each sample was left out, bool `[models, n]`.

    Raises InputError where a sample was in all models or in none.
    """
    p, out = probabilities.double(), left_out.double()
    without, within = out.sum(0), (1 - out).sum(0)
    if bool((without == 0).any()) or bool((within == 0).any()):
        raise InputError("memorisation isn't defined for samples that all models, or none, were trained on")
    result: Tensor = (p * (1 - out)).sum(0) / within - (p * out).sum(0) / without
    return result


def draw_sets(setup: Setup, names: Sequence[str], share: float, scores: Tensor | None) -> tuple[ForgetSet, ...]:
    """The forget sets, `share` of the captured samples each, at least five; `scores` `[n]` where they are needed."""
    if unknown := [name for name in names if name not in STRATA]:
        raise InputError(f"no forget set is called {unknown}: choose from {', '.join(STRATA)}")
    if not 0.0 < share <= 0.5:
        raise InputError(f"the share to forget is {share}: it must be above 0 and at most .5")
    own = _captured(setup)
    count = max(SMALLEST, math.ceil(share * len(own)))
    if count > len(own) // 2:
        raise InputError(f"{count} of {len(own)} samples can't be forgotten in an audit: prepare more data")
    return tuple(_draw(setup, name, own, count, scores) for name in names)


def needs_scores(names: Sequence[str]) -> bool:
    """Whether one of the sets is drawn by memorisation."""
    return bool({MOST, LEAST} & set(names))


def retained(setup: Setup, sets: Sequence[ForgetSet]) -> tuple[int, ...]:
    """Up to `RETAIN` training samples outside of all sets, on which members are compared, ascending."""
    forgotten = {position for one in sets for position in one.positions}
    outside = np.array([k for k in range(len(setup.train)) if k not in forgotten])
    generator = numpy_generator(setup.seed, "audit retain")
    return tuple(np.sort(generator.choice(outside, min(RETAIN, len(outside)), replace=False)).tolist())


def ensemble_members(setup: Setup, sets: Sequence[ForgetSet], models: int) -> list[Member]:
    """Captured and retrained ("own": with the same seeds) and the independent reference, `models` of each.

    Sets of the same data are forgotten from the same captured models; mislabelled ones have models of their own.
    """
    if models < 4:
        raise InputError(f"an audit needs at least 4 models a side, and {models} were asked for")
    retain = retained(setup, sets)
    plain = tuple(one for one in sets if not one.labels)
    groups = [group for group in (plain, *((one,) for one in sets if one.labels)) if group]
    found = []
    for number in range(models):
        own, other = seed_of(setup, "own", number), seed_of(setup, "reference", number)
        found += [Member("captured", "own", number, own, group, retain=retain) for group in groups]
        for one in sets:
            found.append(Member("retrained", "own", number, own, (one,), retain=retain))
            found.append(Member("retrained", "reference", number, other, (one,), retain=retain))
    return found


def seed_of(setup: Setup, ensemble: str, number: int) -> int:
    """A member's seed, different from the project's and from every other's (but for chance: 1 in 2^31)."""
    return derive_seed(setup.seed, "audit", ensemble, number) % 2**31


def _captured(setup: Setup) -> Tensor:
    """Positions that will have rows."""
    if setup.capture.classes is None:
        return torch.arange(len(setup.train))
    return torch.nonzero(torch.isin(setup.train.labels, torch.tensor(setup.capture.classes)))[:, 0]


def _draw(setup: Setup, name: str, own: Tensor, count: int, scores: Tensor | None) -> ForgetSet:
    if name in (MOST, LEAST):
        if scores is None:
            raise InputError(f"{name!r} needs memorisation scores: train the models that leave samples out first")
        order = scores[own].argsort(descending=name == MOST, stable=True)
        return ForgetSet(name, tuple(sorted(own[order[:count]].tolist())))
    generator = numpy_generator(setup.seed, "audit set", name)
    positions = np.sort(generator.choice(own.numpy(), count, replace=False))
    if name == RANDOM:
        return ForgetSet(name, tuple(positions.tolist()))
    shift = generator.integers(1, setup.classes, count)
    wrong = (setup.train.labels.numpy()[positions] + shift) % setup.classes
    return ForgetSet(name, tuple(positions.tolist()), tuple(wrong.tolist()))
