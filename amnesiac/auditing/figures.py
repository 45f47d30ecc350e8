"""The figures of an audit: each model's ensemble against independently retrained models, for one forget set.

Compared with the reference (retrained, other seeds): U-LiRA, KLoM, epsilon, ToW, relearning, population attack.
Paired with the retrained model of the same seed: KL and |margin difference|; of "retrained" itself with the reference,
which is how far two retrainings are from each other.
"""

from typing import Any

import torch

from amnesiac.auditing.reading import HELD_OUT, REFERENCE, Ensembles
from amnesiac.evaluation.accuracy import accuracy
from amnesiac.evaluation.attacks.relearning import relearn_ratio, steps_to
from amnesiac.evaluation.divergence import kl, mean_abs_margin_difference
from amnesiac.evaluation.epsilon import competition_score, forgetting_epsilon, forgetting_score
from amnesiac.evaluation.klom import QUANTILES, klom, klom_quantiles, null_band
from amnesiac.evaluation.population import population_attack
from amnesiac.evaluation.tow import Triplet, tow
from amnesiac.evaluation.ulira import ULira, ulira

RELEARNT = 1.1
"""Relearnt is who has at most so many times the original models' mean loss on the forget set."""
WHERE = ("forget", "retain", "test")
Figures = dict[str, Any]


def set_figures(found: Ensembles, seed: int = 0) -> Figures:
    """All figures of one forget set, as JSON can hold them: counts and aggregates, nothing of a single sample.

    {"samples", "null_band": {...}, "models": {name: {...}}}; "reference" has accuracies and attacks of its own only.
    """
    retrained = torch.cat([found.margins(name) for name in (HELD_OUT, REFERENCE)])
    band = null_band(retrained, seed=seed)
    names = [name for name in found.logits if name != REFERENCE]
    return {
        "samples": len(found.forget.positions),
        "null_band": {
            "models": band.models,
            "low": _named(band.low),
            "high": _named(band.high),
        },
        "models": {name: _compared(found, name, seed) for name in names} | {REFERENCE: _own(found, REFERENCE, seed)},
    }


def _compared(found: Ensembles, name: str, seed: int) -> Figures:
    margins, reference = found.margins(name), found.margins(REFERENCE)
    epsilons = forgetting_epsilon(margins, reference)
    own, other = _own(found, name, seed), _own(found, REFERENCE, seed)
    score = forgetting_score(epsilons)
    return {
        **own,
        **_paired(found, name),
        "ulira": ulira_figures(ulira(margins, reference, seed=seed)),
        "klom_forget": _named(klom_quantiles(klom(margins, reference))),
        "klom_test": _named(klom_quantiles(klom(found.margins(name, "test"), found.margins(REFERENCE, "test")))),
        "epsilon": _epsilon_figures(epsilons, score),
        "competition_score": competition_score(score, *(_pair(own, other, f"{w}_accuracy") for w in WHERE[1:])),
        "tow": tow(_triplet(own, "forget_accuracy"), _triplet(other, "forget_accuracy")),
        "tow_mia": tow(_triplet(own, "population_auc"), _triplet(other, "population_auc")),
        "relearn_ratio": _finite(relearn_ratio(own["relearn_steps"], other["relearn_steps"])),
    }


def ulira_figures(found: ULira) -> Figures:
    """The attack as JSON: figures, intervals, quantiles over examples, the curve."""
    scalars = {name: getattr(found, name) for name in (
        "auc", "auc_low", "auc_high", "tpr_at_1_fpr", "tpr_low", "tpr_high",
        "tpr_at_01_fpr", "tpr_at_01_low", "tpr_at_01_high", "passes",
    )}  # fmt: skip
    over = torch.quantile(found.per_example, torch.tensor(QUANTILES, dtype=torch.float64))
    curve = {"fpr": found.fpr.tolist(), "tpr": found.tpr.tolist()}
    close = found.nearly_passes(2.0)
    return {**scalars, "nearly_passes": close, "per_example": _named(over.tolist()), "curve": curve}


def _own(found: Ensembles, name: str, seed: int) -> Figures:
    """What an ensemble has by itself: means over its models."""
    logits, labels = found.logits[name], found.labels
    attacks = [
        population_attack(own, labels["forget"], unseen, labels["test"], seed)
        for own, unseen in zip(logits["forget"], logits["test"], strict=True)
    ]
    target = RELEARNT * float(found.relearn["original"][:, 0].mean())
    steps = [steps_to(curve, target) for curve in found.relearn[name]]
    return {
        **{f"{where}_accuracy": _mean([accuracy(one, labels[where]) for one in logits[where]]) for where in WHERE},
        "population_auc": _mean([attack.logistic_auc for attack in attacks]),
        "population_threshold_auc": _mean([attack.threshold_auc for attack in attacks]),
        "relearn_steps": _mean([float(step) for step in steps]),
    }


def _paired(found: Ensembles, name: str) -> Figures:
    """KL and |margin difference| to the same seed's retrained model (of that one: to the reference)."""
    other = REFERENCE if name == HELD_OUT else HELD_OUT
    pairs = {where: list(zip(found.logits[other][where], found.logits[name][where], strict=True)) for where in WHERE}
    kls = {f"kl_{where}": _mean([kl(a, b) for a, b in pairs[where]]) for where in WHERE}
    differences = {
        f"margin_{where}": _mean([mean_abs_margin_difference(a, b, found.labels[where]) for a, b in pairs[where]])
        for where in WHERE
    }
    return kls | differences


def _epsilon_figures(epsilons: torch.Tensor, score: float) -> Figures:
    known = epsilons[epsilons.isfinite()]
    median = _finite(float(epsilons.median()))
    return {
        "score": score,
        "median": median,
        "largest_finite": float(known.max()) if len(known) else None,
        "infinite_share": 1.0 - len(known) / len(epsilons),
    }


def _triplet(own: Figures, first: str) -> Triplet:
    return Triplet(own[first], own["retain_accuracy"], own["test_accuracy"])


def _pair(own: Figures, other: Figures, name: str) -> tuple[float, float]:
    return own[name], other[name]


def _named(values: tuple[float, ...] | list[float]) -> dict[str, float]:
    return {f"{q:g}": value for q, value in zip(QUANTILES, values, strict=True)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if value not in (float("inf"), float("-inf")) else None
