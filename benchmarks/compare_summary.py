"""The comparison in a few lines: where settled deltas stand, among methods without retained data and among all."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.compare_ensembles import REFERENCE, RETRAINED, places_of, uses_retain_data

OURS = "settled"
FIGURES = {
    "kl_forget": "KL on F",
    "kl_test": "KL on the test set",
    "margin_forget": "|margin difference| on F",
    "margin_test": "|margin difference| on the test set",
}
Records = Sequence[Mapping[str, Any]]


def summarised(records: Records, place: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A line a case and figure, and the target that each of them must meet."""
    lines = [
        dict(place) | line(records, case, name) for case in dict(places_of(records)) for name in FIGURES
    ]  # fmt: skip
    return lines, [target(one) for one in lines]


def line(records: Records, case: str, name: str) -> dict[str, Any]:
    """Means over all members, the spread, and where settled deltas stand.

    spread:        mean of two retrainings that differ in the seed
    best_without:  the nearest of the other methods that don't read retained data; settled_below_best: the share of
                   members in which settled deltas are nearer than it
    place_without, place: of settled deltas (1: nearest) among methods without retained data, and among all but
                   retraining;  nearer_with: methods with retained data that are nearer
    """
    values = {method: _by_seed(records, case, method, name) for own, method in places_of(records) if own == case}
    means = {method: mean(own.values()) for method, own in values.items()}
    judged = {method: value for method, value in means.items() if method not in (RETRAINED, REFERENCE)}
    without = {method: value for method, value in judged.items() if not uses_retain_data(method)}
    best = min((method for method in without if method != OURS), key=lambda method: without[method])
    below = mean([values[OURS][seed] < values[best][seed] for seed in values[OURS]])
    nearer = sorted((m for m in judged if judged[m] < judged[OURS]), key=lambda method: judged[method])
    return {
        "case": case, "figure": name, "members": len(values[OURS]), "spread": means[REFERENCE],
        "means": {method: _finite(value) for method, value in means.items()},
        "best_without": best, "settled_below_best": below,
        "place_without": 1 + sum(method in without for method in nearer), "methods_without": len(without),
        "place": 1 + len(nearer), "methods": len(judged),
        "nearer_with": [method for method in nearer if method not in without],
    }  # fmt: skip


def target(found: Mapping[str, Any]) -> dict[str, Any]:
    """Not above the best other method without retained data by more than the spread."""
    best, own = found["means"][found["best_without"]], found["means"][OURS]
    limit = None if best is None else best + found["spread"]
    return {
        "config": found["config"], "case": found["case"],
        "what": f"{FIGURES[found['figure']]}: {found['best_without']}'s + spread",
        "measured": own, "target": limit, "spread": found["spread"],
        "met": own is not None and limit is not None and own <= limit,
    }  # fmt: skip


def sentences(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """The summary for people, one sentence a config, case and figure."""
    return [sentence(found) for found in summary]


def sentence(found: Mapping[str, Any]) -> str:
    """E.g. "mlp, 1% random, KL on F: settled 0.005 (spread 0.04), 1st of 7 without retained data (next: ...)"."""
    own, best = found["means"][OURS], found["best_without"]
    near = found["nearer_with"]
    others = f"; nearer with retained data: {', '.join(near)}" if near else "; none with retained data is nearer"
    return (
        f"{found['config']}, {found['case']}, {FIGURES[found['figure']]}: settled {_short(own)} (spread "
        f"{_short(found['spread'])}), {found['place_without']} of {found['methods_without']} without retained data "
        f"(best other: {best} {_short(found['means'][best])}), {found['place']} of {found['methods']} in all{others}"
    )


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _by_seed(records: Records, case: str, method: str, name: str) -> dict[int, float]:
    """Infinite where a model diverged."""
    own = [record for record in records if (record["case"], record["method"]) == (case, method)]
    return {record["seed"]: math.inf if record[name] is None else float(record[name]) for record in own}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
