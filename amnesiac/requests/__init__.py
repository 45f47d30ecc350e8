"""Deletion requests and batches: read them, file them in the journal, resolve them to rows, carry a batch from state
to state.
"""

from amnesiac.requests.batches import Batches
from amnesiac.requests.chain import value_hmac
from amnesiac.requests.deadlines import Deadline, deadlines, due
from amnesiac.requests.draw import draw_random
from amnesiac.requests.journal import FilingResult, Journal
from amnesiac.requests.parsing import read_requests
from amnesiac.requests.pointer import Pointer, read_pointer, write_pointer
from amnesiac.requests.request import DeletionRequest, Kind, RequestDraft, pending
from amnesiac.requests.resolution import ForgetSet, resolve
from amnesiac.requests.states import STATES, DeletionBatch, Event, State

__all__ = [
    "STATES",
    "Batches",
    "Deadline",
    "DeletionBatch",
    "DeletionRequest",
    "Event",
    "FilingResult",
    "ForgetSet",
    "Journal",
    "Kind",
    "Pointer",
    "RequestDraft",
    "State",
    "deadlines",
    "draw_random",
    "due",
    "pending",
    "read_pointer",
    "read_requests",
    "resolve",
    "value_hmac",
    "write_pointer",
]
