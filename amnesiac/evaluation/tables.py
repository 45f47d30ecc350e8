"""The metrics as rows of a CSV file, as `dvc plots` reads them."""

from collections.abc import Mapping
from typing import Any

from amnesiac.evaluation.comparison import SETS, classes_in, roles_in

Row = dict[str, str | float]


def accuracy_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Rows {"model", "set", "accuracy"}; a set without samples has no row."""
    cells = [(role, name, metrics[role][f"{name}_accuracy"]) for role in roles_in(metrics) for name in SETS]
    return [{"model": role, "set": name, "accuracy": value} for role, name, value in cells if value is not None]


def per_class_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Rows {"what", "model", "class", "accuracy"} on the test set; a class without test samples has no row."""
    values = {role: metrics[role]["per_class_test_accuracy"] for role in roles_in(metrics)}
    return [
        {"what": f"{name}, {role}", "model": role, "class": name, "accuracy": accuracies[name]}
        for role, accuracies in values.items()
        for name in classes_in(metrics)
        if accuracies[name] is not None
    ]


def fidelity_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Rows {"what", "model", "figure", "value"} of the distances from the retrained model; "other seed" is the band."""
    names = ("kl_forget", "kl_test", "margin_forget", "margin_retain", "margin_test")
    cells = [(role, name, metrics[role][name]) for role in roles_in(metrics) if role != "retrained" for name in names]
    cells += [("other seed", name, metrics["band"][name]) for name in names if "band" in metrics]
    return [
        {"what": f"{name}, {role}", "model": role, "figure": name, "value": value}
        for role, name, value in cells
        if value is not None
    ]
