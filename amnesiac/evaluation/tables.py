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
    """Rows {"model", "class", "accuracy"} on the test set; a class without test samples has no row."""
    return [
        {"model": role, "class": name, "accuracy": metrics[role]["per_class_test_accuracy"][name]}
        for role in roles_in(metrics)
        for name in classes_in(metrics)
        if metrics[role]["per_class_test_accuracy"][name] is not None
    ]
