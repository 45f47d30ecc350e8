"""Areas and points of ROC curves, with ties counted as half: the arithmetic under every attack here.

A positive should score high. The area under the curve is the probability that a positive scores above a negative, plus
half that of a tie (Mann and Whitney, 1947); .5 is what guessing gives.
"""

import torch
from torch import Tensor

from amnesiac.errors import InputError


def auc(positives: Tensor, negatives: Tensor) -> float:
    """P(positive > negative) + P(equal) / 2 for scores `[p]` and `[q]`, of any shape; raises InputError for none."""
    _require_scores(positives, negatives)
    return float(weighted_auc(*_rows(positives, negatives))[0])


def tpr_at_fpr(positives: Tensor, negatives: Tensor, fpr: float) -> float:
    """The share of positives above the lowest threshold under which at most `fpr` of the negatives are accused.

    With fewer than 1/fpr negatives none may be accused, so that what is returned is never flattered by a coarse scale.
    """
    _require_scores(positives, negatives)
    return float(weighted_tpr(*_rows(positives, negatives), torch.tensor([fpr], dtype=torch.float64))[0, 0])


def weighted_auc(positives: Tensor, positive_weights: Tensor, negatives: Tensor, negative_weights: Tensor) -> Tensor:
    """AUC `[b]` of b sets of scores `[b, p]` and `[b, q]` with weights (how often each counts) of the same shapes."""
    ordered, order = negatives.sort(dim=1)
    below = torch.nn.functional.pad(negative_weights.gather(1, order).cumsum(1), (1, 0))
    under = below.gather(1, torch.searchsorted(ordered, positives))
    upto = below.gather(1, torch.searchsorted(ordered, positives, right=True))
    wins = (positive_weights * (under + upto) / 2).sum(1)
    result: Tensor = wins / (positive_weights.sum(1) * below[:, -1])
    return result


def weighted_tpr(
    positives: Tensor, positive_weights: Tensor, negatives: Tensor, negative_weights: Tensor, fprs: Tensor
) -> Tensor:
    """TPR `[b, k]` at each of `fprs` `[k]`: the positives above every threshold that accuses more negatives."""
    ordered, order = negatives.sort(dim=1, descending=True)
    weights = negative_weights.gather(1, order)
    accused = weights.cumsum(1) / weights.sum(1, keepdim=True)
    # the first negative with which too many would be accused is the threshold; with fpr 1 there is none
    first = (accused[:, None, :] <= fprs[None, :, None] + 1e-12).sum(2)
    ordered = torch.nn.functional.pad(ordered, (0, 1), value=-torch.inf)
    limits = ordered.gather(1, first)
    over = (positives[:, None, :] > limits[:, :, None]) * positive_weights[:, None, :]
    result: Tensor = over.sum(2) / positive_weights.sum(1)[:, None]
    return result


def _rows(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = positives.double().reshape(1, -1), negatives.double().reshape(1, -1)
    return a, torch.ones_like(a), b, torch.ones_like(b)


def _require_scores(positives: Tensor, negatives: Tensor) -> None:
    if positives.numel() == 0 or negatives.numel() == 0:
        raise InputError(
            f"a ROC curve needs scores on both sides, and there are {positives.numel()} and {negatives.numel()}: "
            "pass at least one of each"
        )
