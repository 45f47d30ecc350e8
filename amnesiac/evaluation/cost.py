"""What a deletion cost, held against retraining: ratios, and from which deletion batch on capturing has paid."""

import math
from collections.abc import Mapping
from typing import Any


def ratios(seconds: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Step, seconds, and how that compares with retraining."""
    retrain = seconds.get("retrain", 0.0)
    return [(step, value, _ratio(value, retrain) if step != "retrain" else "1") for step, value in seconds.items()]


def cost_sentence(seconds: Mapping[str, float], samples: Mapping[str, Any]) -> str:
    """Time of the deletion against retraining, and the break-even; empty where a duration isn't known.

    Training without capture isn't measured: it is taken to be retraining's time, scaled to all training samples.
    """
    if not {"train", "retrain", "unlearn"} <= seconds.keys() or not samples["retain"]:
        return ""
    deletion = seconds["unlearn"] + seconds.get("repair", 0.0)
    plain = seconds["retrain"] * (samples["retain"] + samples["forget"]) / samples["retain"]
    extra = max(0.0, seconds["train"] + seconds.get("seal", 0.0) - plain)
    return f"{_against(deletion, seconds['retrain'])} {_pays(extra, seconds['retrain'] - deletion)}"


def duration(seconds: float) -> str:
    """E.g. "70 ms", "5.2 s", "3.1 min"."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def size(count: int) -> str:
    """E.g. "8.4 MB", in powers of ten."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _against(deletion: float, retrain: float) -> str:
    said = f"Deleting took {duration(deletion)}, retraining {duration(retrain)}"
    return f"{said}: {retrain / deletion:.3g} times as long." if deletion else f"{said}."


def _pays(extra: float, saved: float) -> str:
    said = f"Capture and sealing took about {duration(extra)} beyond plain training"
    if saved <= 0:
        return f"{said}; a deletion saves no time against retraining here, so that isn't earned back."
    batches = max(1, math.ceil(extra / saved))
    return f"{said}; a deletion saves {duration(saved)}: it pays from deletion batch {batches:,} on."


def _ratio(value: float, retrain: float) -> str:
    if not retrain or not value:
        return "–"
    return f"{value / retrain:.2g}" if value > retrain / 10 else f"1/{retrain / value:.0f}"
