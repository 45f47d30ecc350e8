"""The one interface of all unlearning methods that work from the ledger.

A method says which rows training must capture, and what a forget set adds to the weights, from those rows alone:

    theta' = theta + delta(rows of the forget set)          (method.md eq. 4)

Reading, checking and exact summation are the ledger's. For most methods delta is the plain sum (`summed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings


@dataclass(frozen=True)
class Deletion:
    """What a deletion adds to the weights.

    ledger, rows: which ledger was read, and how many rows a deletion took;  delta: float64 by parameter name
    correction:   what delta has beyond the plain sum of the rows in the first ledger, None for nothing
    """

    ledger: str
    rows: int
    delta: dict[str, torch.Tensor]
    correction: dict[str, torch.Tensor] | None = None


@dataclass(frozen=True)
class Method:
    """A method.

    ledgers:  what training has to capture for it
    delete:   (ledger, positions of a forget set, not empty, in the training split, settings, positions that earlier
              batches deleted) -> what to add
    """

    name: str
    summary: str
    source: str
    ledgers: Callable[[CaptureSettings], tuple[LedgerSpec, ...]]
    delete: Callable[[SealedLedger, Sequence[int], UnlearningSettings, Sequence[int]], Deletion]


def summed(ledger: SealedLedger, name: str, rows: list[int]) -> Deletion:
    """The plain sum of rows."""
    return Deletion(name, len(rows), ledger.total(name, rows))
