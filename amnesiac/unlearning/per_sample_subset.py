"""The 2024 paper: each sample's summed gradients on a random fraction of the parameters, drawn by its own seed."""

from collections.abc import Sequence

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method, summed

LEDGERS = {"one": "subset-one", "lr": "subset-lr"}


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """As described (gradients of the mean loss, factor 1) and scaled by each step's learning rate."""
    fraction = capture.subset_fraction
    return (
        LedgerSpec(LEDGERS["one"], "sample", "one", fraction),
        LedgerSpec(LEDGERS["lr"], "sample", "lr", fraction),
    )


def delete(
    ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings, before: Sequence[int]
) -> Deletion:
    """The forgotten samples' rows, in the scaling that the settings ask for."""
    return summed(ledger, LEDGERS[settings.scale], ledger.sample_rows(forget))


PER_SAMPLE_SUBSET = Method(
    "per-sample-subset",
    "add each sample's summed gradients back on a random fraction of the parameters",
    "Marincione 2024 (per-sample amnesiac unlearning)",
    ledgers,
    delete,
)
