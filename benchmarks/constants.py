"""The constants of `amnesiac.sizing`, read from benchmarks/results where these are; its defaults elsewhere."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from amnesiac.sizing import CURVATURE_SAMPLES, SEGMENTS, Constants

RESULTS = Path(__file__).parent / "results"
PARAMETERS = {"mlp": 101_770, "cnn": 106_122}
"""Of the models of `bench seal`, `bench capture`."""
VISITS = {"mlp": 4000 * 12, "cnn": 4000 * 9}
DRAWN = 500
"""Samples a segment of their curvature: an eighth of 4,000."""
RESNET = {"training": 1400 / (200_000 * 11.2e6), "curvature": 0.032 / 11.2e6, "settling": 0.068 / 8 / 11.2e6}
"""ResNet-18, docs/methods.md: seconds a parameter and visit (curvature: and gradient); in no result file."""
assert DRAWN <= CURVATURE_SAMPLES


def measured(results: Path = RESULTS) -> Constants:
    """What the last runs of `bench seal`, `bench capture` and `bench store` gave."""
    found = Constants()
    for name, read in (("sealing.json", _of_sealing), ("capture.json", _of_capture), ("store.json", _of_store)):
        path = results / name
        if path.exists():
            found = replace(found, **read(json.loads(path.read_text())["rows"]))
    return found


def _of_sealing(rows: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = {(row["model"], row["variant"]): row["seconds"] for row in rows}

    def each(variant: str, of: Callable[[str], float], extra: float) -> tuple[float, float]:
        every = [seconds[model, variant] / of(model) for model in PARAMETERS] + [extra]
        return min(every), max(every)

    visits: Callable[[str], float] = lambda model: VISITS[model] * PARAMETERS[model]  # noqa: E731
    drawn: Callable[[str], float] = lambda model: SEGMENTS * DRAWN * PARAMETERS[model]  # noqa: E731
    return {
        "training": each("plain training", visits, RESNET["training"]),
        "curvature": each("curvature", drawn, RESNET["curvature"]),
        "settling": each("settling", visits, RESNET["settling"]),
    }


def _of_capture(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = [row["cpu_ratio"] for row in rows if row["variant"] == "capture"]
    return {"capture": (min(ratios), max(ratios))}


def _of_store(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A line through the shortest and the longest rows that were measured."""
    own = [row for row in rows if row["variant"] == "encrypted"]
    return {"write": _line(own, "write", 1.0), "read": _line(own, "random read", 0.1)}


def _line(rows: list[dict[str, Any]], what: str, part: float) -> tuple[float, float]:
    points = sorted((r["bytes_per_sample"], r["seconds"] / (part * r["n"])) for r in rows if r["what"] == what)
    (short, low), (long, high) = points[0], points[-1]
    slope = max(0.0, (high - low) / (long - short))
    return max(0.0, low - slope * short), slope
