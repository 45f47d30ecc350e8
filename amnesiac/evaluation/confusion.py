"""Interclass confusion: what is left of labels that were swapped before training and then forgotten.

Goel et al., "Towards adversarial evaluations for inexact machine unlearning" (2022, arXiv 2201.06640): train with the
labels of some samples of two classes swapped, forget those samples, and count how often the two are still taken for
each other. The strongest cheap test of forgetting samples: retraining leaves hardly any.
"""

from torch import Tensor

from amnesiac.errors import InputError


def confusion(logits: Tensor, truth: Tensor, classes: tuple[int, int]) -> float:
    """Share of the samples of two classes that are taken for the other one, in [0, 1]; 0 where there are none.

    logits: `[n, classes]`;  truth: true labels `[n]`, as they were before any were swapped;  classes: the two
    """
    first, second = classes
    if first == second:
        raise InputError(f"class {first} can't be confused with itself: name two classes")
    own = (truth == first) | (truth == second)
    wrong = logits.argmax(1)[own] == first + second - truth[own]
    return float(wrong.double().mean()) if int(own.sum()) else 0.0
