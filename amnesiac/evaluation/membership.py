"""The population attack as a curve: does a model treat forgotten samples otherwise than samples it never saw?

The attacker calls a sample a member where its margin is above a threshold: as a rule on the loss (Yeom et al., 2018,
arXiv 1709.01604), since margin = log(p / (1 - p)) falls with it. Forgotten samples are the positives, test samples of
the same classes the negatives, each class weighing as much as it does among the forgotten: otherwise a forgotten class
would be told from the others by what it looks like. The goal isn't 0.5 but the retrained model's own curve.

An average over samples misses the few that are remembered (Carlini et al., 2022, arXiv 2112.03570): `amnesiac audit`
asks sample by sample, with many models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amnesiac.evaluation.divergence import margin
from amnesiac.evaluation.logits import predict

GRID = tuple(k / 100 for k in range(101))
"""False positive rates at which a curve is kept."""


@dataclass(frozen=True)
class Membership:
    """tpr: true positive rates at `GRID`;  auc: exact, ties count as half, in [0, 1]"""

    tpr: tuple[float, ...]
    auc: float


def membership(forgotten: Tensor, forgotten_labels: Tensor, unseen: Tensor, unseen_labels: Tensor) -> Membership | None:
    """Attack one model by its logits on forgotten `[n, classes]` and unseen `[m, classes]` samples.

    Forgotten samples of a class that has no unseen sample are left out; None where no sample is left.
    """
    classes = forgotten.shape[1]
    share = torch.bincount(forgotten_labels, minlength=classes).double()
    there = torch.bincount(unseen_labels, minlength=classes).double()
    kept, wanted = there[forgotten_labels] > 0, share[unseen_labels] > 0
    if not bool(kept.any()):
        return None
    positives = margin(forgotten[kept], forgotten_labels[kept])
    negatives = margin(unseen[wanted], unseen_labels[wanted])
    weights = (share / there)[unseen_labels[wanted]]
    fpr, tpr = _roc(positives, negatives, weights)
    area = float(((fpr[1:] - fpr[:-1]) * (tpr[1:] + tpr[:-1])).sum() / 2)
    return Membership(_at_grid(fpr, tpr), area)


def membership_curves(
    model: nn.Module, weights: Mapping[str, Mapping[str, Tensor]], sets: Mapping[str, tuple[Tensor, Tensor]]
) -> list[dict[str, Any]]:
    """Curves of all models as rows {"model", "fpr", "tpr"}, as `dvc plots` reads them.

    `sets` holds (inputs, labels) as "forget" and "test"; no rows where there is nothing to attack.
    """
    rows: list[dict[str, Any]] = []
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for role, state in weights.items():
        model.load_state_dict(dict(state))
        (forget, labels), (test, truth) = sets["forget"], sets["test"]
        found = membership(predict(model, forget), labels, predict(model, test), truth) if len(labels) else None
        rows += _rows(role, found.tpr) if found else []
    model.load_state_dict(before)
    return rows


def _rows(role: str, tpr: Sequence[float]) -> list[dict[str, Any]]:
    return [{"model": role, "fpr": x, "tpr": round(y, 6)} for x, y in zip(GRID, tpr, strict=True)]


def _roc(positives: Tensor, negatives: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Corners `[k]` of the curve from (0, 0) to (1, 1): one a distinct score, so that ties are a slope."""
    scores = torch.cat([positives, negatives])
    hits = torch.cat([torch.ones(len(positives)).double(), torch.zeros(len(negatives)).double()])
    alarms = torch.cat([torch.zeros(len(positives)).double(), weights])
    order = scores.argsort(descending=True)
    last = torch.cat([scores[order][1:] != scores[order][:-1], torch.tensor([True])])
    corners = [part[order].cumsum(0)[last] / part.sum() for part in (alarms, hits)]
    fpr, tpr = (torch.cat([torch.zeros(1).double(), corner]) for corner in corners)
    return fpr, tpr


def _at_grid(fpr: Tensor, tpr: Tensor) -> tuple[float, ...]:
    """The curve's height at `GRID`: the upper end of its jumps, a straight line between corners."""
    grid = torch.tensor(GRID, dtype=torch.float64)
    right = torch.searchsorted(fpr, grid + 1e-12, right=True).clamp(1, len(fpr) - 1)
    left = right - 1
    width = (fpr[right] - fpr[left]).clamp_min(1e-300)
    step = ((grid - fpr[left]) / width).clamp(0, 1)
    return tuple((tpr[left] + step * (tpr[right] - tpr[left])).tolist())
