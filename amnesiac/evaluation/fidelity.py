"""Paired fidelity of two models on the same samples, beside `divergence` (KL, margins, weights)."""

import torch
from torch import Tensor

from amnesiac.errors import InputError


def agreement(logits: Tensor, other: Tensor) -> float:
    """Share of samples, in [0, 1], for which two models' largest logit `[n, classes]` is of the same class.

    1 minus the "churn" of Fard et al., "Launch and iterate: reducing prediction churn" (NeurIPS 2016).
    """
    _require_pairs(logits, other)
    return float((logits.argmax(1) == other.argmax(1)).double().mean())


def activation_distance(logits: Tensor, other: Tensor) -> float:
    """Mean L2 distance of the two models' class probabilities, (1/n) sum_i ||p_i - q_i||, in [0, sqrt 2].

    Golatkar et al., "Mixed-privacy forgetting in deep networks" (CVPR 2021, arXiv 2012.13431).
    """
    _require_pairs(logits, other)
    difference = logits.double().softmax(1) - other.double().softmax(1)
    return float(torch.linalg.vector_norm(difference, dim=1).mean())


def _require_pairs(logits: Tensor, other: Tensor) -> None:
    if logits.shape != other.shape or len(logits) == 0:
        raise InputError(
            f"logits of shapes {list(logits.shape)} and {list(other.shape)} can't be compared: "
            "pass those of two models on the same samples, at least one"
        )
