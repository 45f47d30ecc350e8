"""Unlearning methods that work from the ledger, behind one interface."""

from amnesiac.unlearning.method import Deletion, Method
from amnesiac.unlearning.unlearn import METHODS, Unlearned, ledgers_for, unlearn

__all__ = ["METHODS", "Deletion", "Method", "Unlearned", "ledgers_for", "unlearn"]
