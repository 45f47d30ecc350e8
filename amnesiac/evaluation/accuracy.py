"""The fraction of samples whose largest logit is that of their label."""

import torch

from amnesiac.errors import InputError


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy in [0, 1]: (1/n) sum_i [argmax_c z_ic = y_i] for `logits` `[n, classes]` and `labels` `[n]`.

    Raises InputError when there is no sample.
    """
    if len(labels) == 0:
        raise InputError("the accuracy of no samples isn't defined: pass at least one, or report it as missing")
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def per_class_accuracy(logits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> list[float | None]:
    """Accuracy over the samples of each class 0 ... num_classes - 1; None where a class has no sample."""
    hits = torch.bincount(labels[logits.argmax(1) == labels], minlength=num_classes).tolist()
    totals = torch.bincount(labels, minlength=num_classes).tolist()
    return [hit / total if total else None for hit, total in zip(hits, totals, strict=True)]
