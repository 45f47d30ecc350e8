"""Unlearning methods that work from the ledger, behind one interface."""

from amnesiac.unlearning.method import Method, Selection
from amnesiac.unlearning.unlearn import METHODS, Unlearned, ledgers_for, unlearn

__all__ = ["METHODS", "Method", "Selection", "Unlearned", "ledgers_for", "unlearn"]
