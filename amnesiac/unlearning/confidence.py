"""How far to trust a deletion before it is published: a predicted divergence from retraining, without retraining.

Sealing tries deletions on retained samples (curvature/pilot.py) and keeps what they did to samples that were not
deleted: a damage in nats at a norm of the change. What is left of a contribution after damping lies in weakly damped
directions, where first order has nothing to hold on to; the damage grows with the square of its norm, and faster
where a large part of a class goes, but not all of it (there the curvature of what remains changes most):

    predicted KL = FACTOR * (1 + SKEW s (1 - s)) * damage of the pilots * (||theta' - theta_T|| / ||pilot's change||)^2

s is the largest share of a class that is deleted, beyond the share of all samples; 0 for a class that is gone.
theta' - theta_T is all that was subtracted since training, so earlier batches count: the deltas of what remains refer
to a trajectory that is further and further away (drift, method.md §9). FACTOR and SKEW were calibrated against real
retrainings (docs/methods.md has the figures).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.settings import ConfidenceSettings
from amnesiac.unlearning.settled import LEDGER, UNSETTLED, class_shares, classes_gone

FACTOR, SKEW = 2.0, 12.0
Verdict = Literal["good", "needs_repair", "needs_retraining"]


@dataclass(frozen=True)
class Confidence:
    """predicted_kl: KL(retrained || unlearned) on samples that were not deleted, nats, mean per sample
    drift:        ||theta' - theta_T|| / ||theta_T - theta_0||, all batches; an estimate once theta_T is withdrawn
    share:        of the training samples that are deleted by now
    verdict:      by the settings' limits;  reason: a sentence, empty when good
    drift_at_most: what drift can't exceed: the sum of the batches' norms once theta_T is withdrawn, else drift itself

    Where only some layers were captured (`capture.layers`) no verdict is good, and the reason says why: what the others
    have learnt from the deleted is in no prediction (docs/sizing.md has measurements).
    """

    predicted_kl: float
    drift: float
    share: float
    verdict: Verdict
    reason: str
    drift_at_most: float = 0.0


def confidence(
    ledger: SealedLedger,
    trained: Mapping[str, torch.Tensor],
    master: Mapping[str, torch.Tensor],
    deleted: Sequence[int],
    settings: ConfidenceSettings,
    moved: float = 0.0,
    moved_at_most: float | None = None,
) -> Confidence | None:
    """Of the weights `master` after all deletions so far; None for a ledger without settled rows.

    trained: weights that training ended with;  deleted: positions of all samples that are deleted by now
    moved:   drift up to `trained`, where these are a later version's master weights because the trained ones are
             withdrawn: the norms are added as those of orthogonal changes, which is too little where they are alike
             (docs/methods.md has measurements);  moved_at_most: its upper bound, `moved` if it isn't known

    More can't be said: it would take the inner product with theta_HEAD - theta_T, which is the sum of the erased rows
    and is withdrawn for that reason; a sketch of it would tell who was erased.
    """
    entry = next((ledger.manifest.entries[n] for n in (LEDGER, UNSETTLED) if n in ledger.manifest.entries), None)
    if entry is None:
        return None
    settling = entry.codec["settling"]
    step, path = _distance(ledger, trained, master), settling["path"]
    norm, most = math.hypot(moved * path, step), (moved if moved_at_most is None else moved_at_most) * path + step
    share, skew = len(set(deleted)) / max(1, len(ledger)), _skew(ledger, deleted)
    pilot = settling["whole" if classes_gone(ledger, deleted) else "few"]
    relative = norm / pilot["norm"] if pilot["norm"] else 0.0
    predicted = FACTOR * pilot["damage"] * relative**2 * (1.0 + SKEW * skew * (1.0 - skew))
    drift, at_most = (norm / path, most / path) if path else (0.0, 0.0)
    verdict, reason = _judged(predicted, drift, settings)
    if untouched := _untouched(ledger, trained):
        verdict = "needs_repair" if verdict == "good" else verdict
        reason = "; ".join(filter(None, [reason, untouched]))
    return Confidence(predicted, drift, share, verdict, reason, at_most)


def _untouched(ledger: SealedLedger, trained: Mapping[str, torch.Tensor]) -> str:
    """What no deletion changes, in a sentence; empty where all layers were captured."""
    if ledger.manifest.run.get("capture", {}).get("layers") is None:
        return ""
    captured = {name for name, _ in ledger.manifest.parameters}
    sizes = {name: value.numel() for name, value in trained.items() if value.is_floating_point()}
    part = sum(size for name, size in sizes.items() if name in captured) / max(1, sum(sizes.values()))
    return f"only {part:.3g} of the weights were captured (capture.layers): the others keep what they learnt"


def _skew(ledger: SealedLedger, deleted: Sequence[int]) -> float:
    """The largest share of a class that is deleted beyond the share of all samples, of classes that are not gone."""
    shares, gone = class_shares(ledger, deleted), classes_gone(ledger, deleted)
    overall = len(set(deleted)) / max(1, len(ledger))
    return max([0.0, *(float(share) - overall for label, share in enumerate(shares) if label not in gone)])


def _judged(predicted: float, drift: float, settings: ConfidenceSettings) -> tuple[Verdict, str]:
    found = f"predicted divergence from retraining {predicted:.3g} nats (limits: repair {settings.repair_above:g}, "
    found += f"retraining {settings.retrain_above:g}); drift {drift:.3g} of {settings.drift_budget:g}"
    # asked this way round, a NaN is within no limit; otherwise weights that are no numbers would be called good
    if not (predicted <= settings.retrain_above and drift <= settings.drift_budget):
        return "needs_retraining", f"beyond what subtraction can do: {found}. Retrain without the deleted samples"
    if predicted > settings.repair_above:
        return "needs_repair", f"{found}. Repair on retained data"
    return "good", ""


def _distance(ledger: SealedLedger, trained: Mapping[str, torch.Tensor], master: Mapping[str, torch.Tensor]) -> float:
    names = [name for name, _ in ledger.manifest.parameters]
    return float(np.sqrt(sum(float((master[name].double() - trained[name].double()).square().sum()) for name in names)))
