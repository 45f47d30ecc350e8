"""The delta store: rows that take a sample's part back, sealed when training is over."""

from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.sealed import SealedLedger, open_ledger
from amnesiac.ledger.settled_parts import Spread, settle_span
from amnesiac.ledger.settled_rows import SettledPart
from amnesiac.ledger.spec import LedgerSpec

__all__ = [
    "LedgerSpec", "Manifest", "Run", "SealedLedger", "SettledPart", "Spread", "open_ledger", "seal", "settle_span",
]  # fmt: skip
