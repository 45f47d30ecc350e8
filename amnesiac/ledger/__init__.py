"""The delta store: rows that take a sample's part back, sealed when training is over."""

from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.sealed import SealedLedger, open_ledger
from amnesiac.ledger.spec import LedgerSpec

__all__ = ["LedgerSpec", "Manifest", "Run", "SealedLedger", "open_ledger", "seal"]
