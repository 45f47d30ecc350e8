"""ToW, the tug of war: one number for forgetting, keeping and generalising as retraining does.

Zhao et al., "What makes unlearning hard and what to do about it" (2024, arXiv 2406.01257):

    ToW     = (1 - |FA_u - FA_r|) (1 - |RA_u - RA_r|) (1 - |TA_u - TA_r|)
    ToW-MIA = (1 - |MIA_u - MIA_r|) (1 - |RA_u - RA_r|) (1 - |TA_u - TA_r|)

with accuracies on forget, retain and test set, and the success of a membership attack, of the unlearned and the
retrained model. 1: no difference. Over-forgetting costs as much as forgetting too little.
"""

from dataclasses import dataclass

from amnesiac.errors import InputError


@dataclass(frozen=True)
class Triplet:
    """Accuracies in [0, 1] on forget, retain and test set; for ToW-MIA an attack's success stands for `forget`."""

    forget: float
    retain: float
    test: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{name} is {value}: ToW takes shares from 0 to 1, not percentages")


def tow(unlearned: Triplet, retrained: Triplet) -> float:
    """ToW in [0, 1], or ToW-MIA where `forget` holds an attack's success."""
    gaps = (unlearned.forget - retrained.forget, unlearned.retain - retrained.retain, unlearned.test - retrained.test)
    product = 1.0
    for gap in gaps:
        product *= 1.0 - abs(gap)
    return product
