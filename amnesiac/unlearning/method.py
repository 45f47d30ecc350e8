"""The one interface of all unlearning methods that work from the ledger.

A method says which rows training must capture, and which of them a forget set adds to the weights:

    theta' = theta + sum of the selected rows          (method.md eq. 4)

Everything else (reading, checking, exact summation) is the ledger's. A method that weighs contributions differently,
such as settled
deltas, brings a `LedgerSpec` with weights of its own; its deletion is the same sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings


@dataclass(frozen=True)
class Selection:
    """Rows of one ledger."""

    ledger: str
    rows: list[int]


@dataclass(frozen=True)
class Method:
    """A method.

    ledgers:  what training has to capture for it
    select:   (ledger, positions of the forget set in the training split, settings) -> rows to add
    """

    name: str
    summary: str
    source: str
    ledgers: Callable[[CaptureSettings], tuple[LedgerSpec, ...]]
    select: Callable[[SealedLedger, Sequence[int], UnlearningSettings], Selection]
