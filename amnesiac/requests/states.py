"""The states of a deletion batch, and what a batch is: a number, its requests, and when it reached which state.

    RECEIVED → PLANNED → STAGED → EVALUATED → PUBLISHED → KEYS_DESTROYED → PURGED → SCANNED → RECEIPTED

Before PUBLISHED a crash rolls back (the batch is abandoned, its requests wait for the next one); after it every step is
repeated until it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from amnesiac.errors import BatchConflict

State = Literal[
    "RECEIVED", "PLANNED", "STAGED", "EVALUATED", "PUBLISHED", "KEYS_DESTROYED", "PURGED", "SCANNED", "RECEIPTED"
]
Ended = Literal["abandoned", "rolled back"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Event:
    """A batch reached a state, or ended ("ABANDONED", "ROLLED_BACK"); `at` is ISO-8601 UTC to the second."""

    state: str
    at: str
    fence: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class DeletionBatch:
    """A batch as the journal holds it.

    fence: of the writer that may advance it;  ended: why its requests wait for another batch, None where it counts
    """

    number: int
    state: State
    fence: int
    ended: Ended | None
    request_ids: tuple[str, ...]
    events: tuple[Event, ...]

    def reached(self, state: State) -> bool:
        """Whether the batch has come as far as `state`."""
        return STATES.index(self.state) >= STATES.index(state)

    def facts(self, state: State) -> Mapping[str, Any]:
        """What was noted when the batch reached a state; {} if it hasn't."""
        return next((event.facts for event in reversed(self.events) if event.state == state), {})


def check_next(batch: DeletionBatch, to: State) -> None:
    """Raise BatchConflict unless `to` follows the batch's state at once."""
    place = STATES.index(batch.state) + 1
    if batch.ended or place == len(STATES) or STATES[place] != to:
        found = batch.ended or batch.state
        raise BatchConflict(
            f"deletion batch {batch.number} is {found}, which {to} doesn't follow: run `amnesiac recover`"
        )
