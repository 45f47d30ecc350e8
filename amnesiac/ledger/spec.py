"""What a sealed ledger can hold: the kinds of rows that unlearning methods ask for."""

from dataclasses import dataclass
from typing import Literal

from amnesiac.settings import SettledSettings


@dataclass(frozen=True)
class LedgerSpec:
    """One row array of a ledger. A row is what has to be *added* to the weights to take its owner's part back.

    per:      a row belongs to a sample, to an optimiser step (a whole-batch update), to a sample with a part for
              each segment, kept apart so that curvature can weigh them at deletion, or to a sample, weighed already
              ("settled", for a few samples of each class; "settled class", for a whole class)
    weights:  a sample's gradients are summed with what the optimiser made of them (attribution.py), the same without
              Adam's preconditioner ("rate"), with the step's learning rate, or as they are
    fraction: of each parameter tensor's coordinates that are kept
    form:     of settled rows
    """

    name: str
    per: Literal["sample", "step", "segment", "settled", "settled class"]
    weights: Literal["optimizer", "rate", "lr", "one"] = "optimizer"
    fraction: float = 1.0
    form: SettledSettings = SettledSettings()
