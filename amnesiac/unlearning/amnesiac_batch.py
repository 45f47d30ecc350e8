"""The original amnesiac unlearning: undo every update whose mini-batch held a forgotten sample."""

from collections.abc import Sequence

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method, summed

LEDGER = "updates"


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """One row an optimiser step: the whole update."""
    return (LedgerSpec(LEDGER, "step"),)


def delete(
    ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings, before: Sequence[int]
) -> Deletion:
    """The steps that saw a forgotten sample; the innocent samples of their mini-batches go with them.

    Steps that an earlier deletion undid aren't undone twice.
    """
    return summed(ledger, LEDGER, sorted(set(ledger.steps_of(forget)) - set(ledger.steps_of(before))))


AMNESIAC_BATCH = Method(
    "amnesiac-batch",
    "undo every update whose mini-batch held a forgotten sample",
    "Graves, Nagisetty and Ganesh, Amnesiac Machine Learning, AAAI 2021",
    ledgers,
    delete,
)
