"""Layer-wise partial amnesiac unlearning: the original, on a random fraction of every parameter tensor."""

from collections.abc import Sequence

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method, summed

LEDGER = "updates-partial"


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """One row an optimiser step, on the same random coordinates for all steps."""
    return (LedgerSpec(LEDGER, "step", fraction=capture.subset_fraction),)


def delete(
    ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings, before: Sequence[int]
) -> Deletion:
    """The steps that saw a forgotten sample, without those that an earlier deletion undid."""
    return summed(ledger, LEDGER, sorted(set(ledger.steps_of(forget)) - set(ledger.steps_of(before))))


LAYERWISE_PARTIAL = Method(
    "layerwise-partial",
    "undo a random part of every update whose mini-batch held a forgotten sample",
    "Gogineni and Nadimi, arXiv 2403.07611 (layer-wise partial updates)",
    ledgers,
    delete,
)
