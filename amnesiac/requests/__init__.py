"""Deletion requests and batches: read them, file them in the journal, resolve them to rows, carry a batch from state
to state.
"""

from amnesiac.requests.batches import Batches
from amnesiac.requests.chain import value_hmac
from amnesiac.requests.deadlines import Deadline, deadlines, due
from amnesiac.requests.draw import draw_random
from amnesiac.requests.journal import FilingResult, Journal
from amnesiac.requests.moving import copy_journal
from amnesiac.requests.parsing import read_requests
from amnesiac.requests.pointer import Pointer, read_pointer, write_pointer
from amnesiac.requests.request import DeletionRequest, Kind, RequestDraft, pending
from amnesiac.requests.resolution import ForgetSet, Gone, named_rows, not_held, nothing_gone, resolve
from amnesiac.requests.states import STATES, DeletionBatch, Event, State

__all__ = [
    "Batches",
    "Deadline",
    "DeletionBatch",
    "DeletionRequest",
    "Event",
    "FilingResult",
    "ForgetSet",
    "Gone",
    "Journal",
    "Kind",
    "Pointer",
    "RequestDraft",
    "STATES",
    "State",
    "copy_journal",
    "deadlines",
    "draw_random",
    "due",
    "named_rows",
    "not_held",
    "nothing_gone",
    "pending",
    "read_pointer",
    "read_requests",
    "resolve",
    "value_hmac",
    "write_pointer",
]
