"""Deletion requests: read them, file them in the journal, and resolve them to rows of the train split."""

from amnesiac.requests.draw import draw_random
from amnesiac.requests.journal import FilingResult, Journal
from amnesiac.requests.parsing import read_requests
from amnesiac.requests.pointer import Pointer, read_pointer, write_pointer
from amnesiac.requests.request import DeletionRequest, Kind, RequestDraft, pending
from amnesiac.requests.resolution import ForgetSet, resolve

__all__ = [
    "DeletionRequest",
    "FilingResult",
    "ForgetSet",
    "Journal",
    "Kind",
    "Pointer",
    "RequestDraft",
    "draw_random",
    "pending",
    "read_pointer",
    "read_requests",
    "resolve",
    "write_pointer",
]
