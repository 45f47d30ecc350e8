"""Unlearning methods that work from the ledger, behind one interface."""

from amnesiac.unlearning.confidence import Confidence, confidence
from amnesiac.unlearning.method import Deletion, Method
from amnesiac.unlearning.unlearn import METHODS, Unlearned, ledgers_for, unlearn

__all__ = ["METHODS", "Confidence", "Deletion", "Method", "Unlearned", "confidence", "ledgers_for", "unlearn"]
