"""Attacks that need the model, its weights or the ledger: what somebody with access could still learn.

relearning          how fast the forgotten is learnt again
model_inversion     what a class looks like to the model
gradient_inversion  the input that a ledger's row gives away
version_difference  the input that two published versions give away
"""

from amnesiac.evaluation.attacks.gradient_inversion import cosine, input_of_row, inputs_of_sum
from amnesiac.evaluation.attacks.model_inversion import Inversion, InversionSearch, class_resemblance, invert_class
from amnesiac.evaluation.attacks.relearning import Relearning, relearn_curve, relearn_ratio, relearn_steps, steps_to
from amnesiac.evaluation.attacks.version_difference import (
    accused_by_difference,
    accused_by_fit,
    recovered_input,
    resemblance,
)

__all__ = [
    "Inversion",
    "InversionSearch",
    "Relearning",
    "accused_by_difference",
    "accused_by_fit",
    "class_resemblance",
    "cosine",
    "input_of_row",
    "inputs_of_sum",
    "invert_class",
    "recovered_input",
    "relearn_curve",
    "relearn_ratio",
    "relearn_steps",
    "resemblance",
    "steps_to",
]
