"""How well a predicted divergence (amnesiac/unlearning/confidence.py) agrees with the one that retraining shows.

The constants of the prediction (FACTOR 2, SKEW 12) were chosen on 60 deletions of seeds 0 to 2, among other settings
those of the calibration profile; what is reported is measured on other seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.forgetting_cases import BOTH, CLASS

FITTED_SEEDS = (0, 1, 2)
WITHIN = 3.0


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of parts of the data and of whole classes, and of all: n, correlation of the logarithms, median of predicted over
    measured, share within a factor of 3.

    rows: of the benchmark; those count that are settled, not repaired, and carry a prediction. Measured is KL(retrained
    || unlearned) on the retained samples, which is what the prediction is of.
    """
    own = [row for row in rows if row["method"] == "settled" and not row["repaired"] and row.get("predicted_kl")]
    whole = [row for row in own if row["case"].startswith(CLASS) or row["case"] == BOTH]
    parts = [row for row in own if row not in whole]
    named = {"parts of the data": parts, "whole classes": whole, "all": own}
    seeds = sorted({row["seed"] for row in own})
    found = {name: _figures(group) for name, group in named.items() if group}
    return {"seeds": seeds, "out_of_sample": not set(seeds) & set(FITTED_SEEDS), **found}


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    pairs = [(row["predicted_kl"], row["kl_retain"]) for row in rows if row["kl_retain"]]
    logs = np.log(np.array(pairs)).T
    ratios = logs[0] - logs[1]
    varied = len(pairs) > 1 and logs[0].std() > 0 and logs[1].std() > 0
    return {
        "n": len(pairs),
        "log_correlation": float(np.corrcoef(logs)[0, 1]) if varied else None,
        "median_ratio": float(np.exp(np.median(ratios))),
        "within_3": float(np.mean(np.abs(ratios) <= math.log(WITHIN))),
    }
