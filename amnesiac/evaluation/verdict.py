"""One sentence, from the numbers alone, on how near a model is to the retrained one.

The limits below are a reading aid for one pair of models, not a statistical test: how far two retrainings with
different seeds are from each other isn't known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["close", "partly", "far", "nothing"]

CLOSE_ACCURACY = 0.02
"""Largest difference to the retrained model's accuracy that counts as close (retain and test)."""
FAR_ACCURACY = 0.05
"""Difference to the retrained model's accuracy from which on a model is far from it (retain and test)."""
FORGET_FACTOR = 2.5
"""The forget set is small and what it is about: its limits are this much wider, and at least two samples."""
CLOSE_KL_SHARE = 0.25
"""Share of the original model's KL that a close model may keep."""
KL_FLOOR = 0.02
"""KL in nats below which a difference isn't worth mention, whatever the original model's KL."""

LIMITS = (
    f"“Close” means at most {100 * CLOSE_ACCURACY:.0f} percentage points from the retrained model's accuracy on retain "
    f"and test set ({100 * CLOSE_ACCURACY * FORGET_FACTOR:.0f} points or two samples on the forget set), and at most "
    f"{100 * CLOSE_KL_SHARE:.0f} % of the original model's KL or {KL_FLOOR} nats. “Far” means "
    f"{100 * FAR_ACCURACY:.0f} points or more ({100 * FAR_ACCURACY * FORGET_FACTOR:.1f} on the forget set), or a KL "
    "larger than that of the original model, which is worse than doing nothing."
)


@dataclass(frozen=True)
class Verdict:
    """How near a model is to retraining, the sentence that says so, and the numbers behind it."""

    level: Level
    sentence: str
    reasons: tuple[str, ...]


def judge(metrics: Mapping[str, Any], role: str = "unlearned") -> Verdict:
    """Compare `role` with the retrained and the original model in what `compare` returned."""
    if metrics["samples"]["forget"] == 0:
        return Verdict("nothing", "There was nothing to forget: the forget set is empty.", ())
    findings = [*_accuracy_findings(metrics, role), *_kl_findings(metrics, role)]
    level: Level = max((found for found, _ in findings), key=("close", "partly", "far").index)
    reasons = tuple(text for found, text in findings if found == level)
    return Verdict(level, _SENTENCES[level].format(role=role), reasons)


_SENTENCES: Mapping[Level, str] = {
    "close": "The {role} model behaves much like the retrained one.",
    "partly": "The {role} model is partly where retraining would have led.",
    "far": "The {role} model is far from retraining: don't use it in the retrained model's place.",
}


def _accuracy_findings(metrics: Mapping[str, Any], role: str) -> list[tuple[Level, str]]:
    return [_accuracy_finding(metrics, role, name) for name in ("forget", "retain", "test") if metrics["samples"][name]]


def _accuracy_finding(metrics: Mapping[str, Any], role: str, name: str) -> tuple[Level, str]:
    own, wanted = (metrics[k][f"{name}_accuracy"] for k in (role, "retrained"))
    factor, least = (FORGET_FACTOR, 2 / metrics["samples"][name]) if name == "forget" else (1.0, 0.0)
    difference = abs(own - wanted)
    level: Level = "partly"
    # 1e-9: a difference of exactly the limit counts as within it, whatever the rounding.
    if difference <= max(factor * CLOSE_ACCURACY, least) + 1e-9:
        level = "close"
    elif difference >= factor * FAR_ACCURACY:
        level = "far"
    return level, f"accuracy on the {name} set is {100 * own:.1f} %, retrained {100 * wanted:.1f} %"


def _kl_findings(metrics: Mapping[str, Any], role: str) -> list[tuple[Level, str]]:
    return [_kl_finding(metrics, role, name) for name in ("forget", "test") if metrics["samples"][name]]


def _kl_finding(metrics: Mapping[str, Any], role: str, name: str) -> tuple[Level, str]:
    own = metrics[role][f"kl_{name}"]
    if "original" not in metrics:
        text = f"KL from the retrained model on the {name} set is {own:.3g} nats"
        return ("close" if own <= KL_FLOOR else "partly"), text
    untouched = metrics["original"][f"kl_{name}"]
    text = (
        f"KL from the retrained model on the {name} set is {own:.3g} nats, that of the original model {untouched:.3g}"
    )
    if own <= max(CLOSE_KL_SHARE * untouched, KL_FLOOR):
        return "close", text
    if own > untouched:
        return "far", f"{text}: worse than doing nothing"
    return "partly", text
