"""Plain per-sample deltas: a sample's own share of every update, with everything the optimiser made of it."""

from collections.abc import Sequence

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method, summed

LEDGER = "delta"


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """One whole row a sample."""
    return (LedgerSpec(LEDGER, "sample"),)


def delete(
    ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings, before: Sequence[int]
) -> Deletion:
    """The forgotten samples' rows."""
    return summed(ledger, LEDGER, ledger.sample_rows(forget))


PER_SAMPLE_DELTA = Method(
    "per-sample-delta",
    "subtract each sample's share of the updates (momentum, Adam and schedules included)",
    "method.md §1 and §6: equation (1) with the curvature left out",
    ledgers,
    delete,
)
