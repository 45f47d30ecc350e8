"""What the forgetting benchmark must show, checked on its rows: every target is `measured <= target`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from benchmarks.forgetting_cases import BATCHES, CLASS, MISLABELLED, ONE, TEN

Rows = Sequence[Mapping[str, Any]]
EASY = ("sgd", "momentum")
PLACE = ("case", "dataset", "model", "optimizer")


@dataclass(frozen=True)
class Target:
    """One line of the result.

    measured, target:  means over seeds; `met` is measured <= target (None: not a finite number, or no bound)
    spread:            the same figure of the model that was retrained with another seed, None where it has none
    """

    case: str
    dataset: str
    model: str
    optimizer: str
    what: str
    target: float | None
    measured: float | None
    spread: float | None
    seeds: int
    met: bool


@dataclass(frozen=True)
class Group:
    """The rows of one case, data set, model and optimiser, over seeds."""

    rows: tuple[Mapping[str, Any], ...]

    def values(self, method: str, name: str, repaired: bool = False) -> dict[int, float]:
        """A field by seed; infinite where the row has none (JSON has no infinity)."""
        own = [row for row in self.rows if row["method"] == method and row["repaired"] == repaired]
        return {row["seed"]: math.inf if row.get(name) is None else float(row[name]) for row in own}

    def mean(self, method: str, name: str, repaired: bool = False) -> float:
        """Mean over seeds; infinite where the method has no row, so that what wasn't measured isn't met."""
        return mean(self.values(method, name, repaired).values() or [math.inf])

    def gap(self, name: str, repaired: bool = False) -> float:
        """|mean of settled - mean of retrained|."""
        return abs(self.mean("settled", name, repaired) - self.mean("retrained", name))

    def spread(self, name: str) -> float:
        """Mean over seeds of |retrained with another seed - retrained|."""
        other, own = self.values("retrained_other_seed", name), self.values("retrained", name)
        return mean([abs(other[seed] - own[seed]) for seed in own if seed in other] or [math.inf])


@dataclass(frozen=True)
class Check:
    """A target before it is measured; each function takes the group."""

    what: str
    measured: Callable[[Group], float]
    target: Callable[[Group], float]
    spread: Callable[[Group], float] = lambda group: math.inf


def evaluate(rows: Rows) -> list[dict[str, Any]]:
    """The targets that apply to the rows, as JSON can hold them, in the order of the rows."""
    places = dict.fromkeys(tuple(str(row[name]) for name in PLACE) for row in rows)
    found: list[dict[str, Any]] = []
    for place in places:
        group = Group(tuple(row for row in rows if tuple(row[name] for name in PLACE) == place))
        found += [asdict(_judge(check, group, place)) for check in checks(*place)]
    return found


def checks(case: str, dataset: str, model: str, optimizer: str) -> Iterator[Check]:
    """What a case must show; off mnist-5k only that it is nowhere worse than raw_lr, and storage."""
    yield from (_against_raw(name) for name in ("kl_forget", "kl_test"))
    if case == ONE:
        yield from STORAGE
    if dataset != "mnist-5k":
        return
    if case == ONE:
        yield from (*(_accuracy(name, 0.01) for name in ("forget", "test")), *FIDELITY)
    elif case == TEN:
        yield from (_accuracy("test", 0.01), _accuracy("forget", 0.02))
    elif case == BATCHES:
        yield from SUCCESSIVE
    elif case == MISLABELLED:
        yield CONFUSION
    elif case.startswith(CLASS):
        yield from _class_checks(optimizer)


def _class_checks(optimizer: str) -> Iterator[Check]:
    yield Check(
        "forget accuracy", lambda g: g.mean("settled", "forget_accuracy"), lambda g: 0.02, _other("forget_accuracy")
    )
    yield from (_accuracy(name, 0.015 if optimizer in EASY else 0.02) for name in ("retain", "test"))
    if optimizer not in EASY:
        yield from (_accuracy(name, 0.01, repaired=True) for name in ("retain", "test"))


def _accuracy(name: str, limit: float, repaired: bool = False) -> Check:
    field = f"{name}_accuracy"
    what = f"{name} accuracy: difference from retraining" + (", after 1/4 epoch of repair" if repaired else "")
    return Check(what, lambda g: g.gap(field, repaired), lambda g: limit, lambda g: g.spread(field))


def _against_raw(name: str) -> Check:
    """Not above raw_lr by more than the spread."""
    on = {"kl_forget": "KL on F", "kl_test": "KL on the test set"}[name]
    return Check(
        f"{on}: raw_lr's + spread",
        lambda g: g.mean("settled", name),
        lambda g: g.mean("raw_lr", name) + g.mean("retrained_other_seed", name),
        _other(name),
    )


def _other(name: str) -> Callable[[Group], float]:
    return lambda group: group.mean("retrained_other_seed", name)


FIDELITY = (
    Check(
        "KL on F: original's / 10, or the spread",
        lambda g: g.mean("settled", "kl_forget"),
        lambda g: max(g.mean("original", "kl_forget") / 10, g.mean("retrained_other_seed", "kl_forget")),
        _other("kl_forget"),
    ),
    Check(
        "KL on F: plain's / 50",
        lambda g: g.mean("settled", "kl_forget"),
        lambda g: g.mean("plain", "kl_forget") / 50,
        _other("kl_forget"),
    ),
    Check(
        "|margin difference| on F: twice the spread",
        lambda g: g.mean("settled", "margin_forget"),
        lambda g: 2 * g.mean("retrained_other_seed", "margin_forget"),
        _other("margin_forget"),
    ),
)
STORAGE = (
    Check(
        "bytes a sample: dense fp32 / 60",
        lambda g: g.mean("settled", "bytes_per_sample"),
        lambda g: g.mean("plain", "bytes_per_sample") / 60,
    ),
    Check(
        "bytes a sample: original amnesiac / 10",
        lambda g: g.mean("settled", "bytes_per_sample"),
        lambda g: g.mean("settled", "amnesiac_bytes_per_sample") / 10,
    ),
)
SUCCESSIVE = (
    Check(
        "share of seeds whose bits differ from one batch of 10%",
        lambda g: 1.0 - g.mean("settled", "bit_identical"),
        lambda g: 0.0,
    ),
    Check("drift (reported)", lambda g: g.mean("settled", "drift"), lambda g: math.inf),
)
CONFUSION = Check(
    "confusion: retraining's + spread",
    lambda g: g.mean("settled", "confusion"),
    lambda g: g.mean("retrained", "confusion") + g.spread("confusion"),
    lambda g: g.spread("confusion"),
)


def _judge(check: Check, group: Group, place: tuple[str, ...]) -> Target:
    measured, target, spread = check.measured(group), check.target(group), check.spread(group)
    met = math.isfinite(measured) and measured <= target
    seeds = len({row["seed"] for row in group.rows})
    case, dataset, model, optimizer = place
    return Target(
        case, dataset, model, optimizer, check.what, _finite(target), _finite(measured), _finite(spread), seeds, met
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
