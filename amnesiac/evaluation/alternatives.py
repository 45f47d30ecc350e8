"""Figures in words, for those who can't see them: the same numbers, in one sentence."""

from collections.abc import Mapping
from typing import Any

from amnesiac.evaluation.comparison import SETS, classes_in, roles_in


def alternatives(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Alternative texts by the names of `draw_figures`."""
    return {
        "accuracy": "Bars of accuracy in percent. " + _each(metrics, _accuracies),
        "kl": "Bars of KL divergence from the retrained model in nats. " + _each(metrics, _divergences),
        "attack": "Curves of the membership attack; areas under them: " + _each(metrics, _area),
        "ulira": "Curves of U-LiRA on logarithmic axes, one a kind of models; the audit's table below has the areas.",
        "per_class_accuracy": f"Bars of test accuracy for {len(classes_in(metrics))} classes; the table below has all.",
        "examples": "Pictures of forgotten samples, under each its label and what every model takes it for.",
    }


def _each(metrics: Mapping[str, Any], said: Any) -> str:
    return "; ".join(f"{role}: {said(metrics, role)}" for role in roles_in(metrics)) + "."


def _accuracies(metrics: Mapping[str, Any], role: str) -> str:
    values = {name: metrics[role][f"{name}_accuracy"] for name in SETS}
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in values.items() if value is not None)


def _divergences(metrics: Mapping[str, Any], role: str) -> str:
    values = {name: metrics[role][f"kl_{name}"] for name in ("forget", "test")}
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items() if value is not None)


def _area(metrics: Mapping[str, Any], role: str) -> str:
    value = metrics[role].get("membership_auc")
    return "not defined" if value is None else f"{value:.3f}"
