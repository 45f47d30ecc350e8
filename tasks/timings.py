"""Seconds of each step, kept beside the outputs: they differ from run to run, so no DVC output holds them."""

import json

from amnesiac.durable import write_json
from tasks.catalog import catalog


def keep_seconds(step: str, seconds: float) -> None:
    """Remember how long a step took."""
    write_json(catalog().timings / f"{step}.json", {"seconds": round(seconds, 4)})


def read_seconds(step: str) -> float | None:
    """How long a step took when it last ran here; None where its output came from a cache or another machine."""
    path = catalog().timings / f"{step}.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else None
