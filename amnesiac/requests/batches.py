"""Deletion batches in the journal: opened over requests, advanced state by state, by one writer at a time.

Each writer gets a number when it opens or takes over a batch (the fence), larger than all before. Whoever holds an
older one has been taken for dead: it can't advance or publish any more.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Select, delete, func, insert, select, update

from amnesiac.errors import BatchConflict, DamagedStore, RequestError, StaleWriter
from amnesiac.requests import tables
from amnesiac.requests.database import REMEDY
from amnesiac.requests.journal import Journal
from amnesiac.requests.request import timestamp
from amnesiac.requests.states import STATES, DeletionBatch, Ended, Event, State, check_next

_NOTES: dict[Ended, str] = {"abandoned": "ABANDONED", "rolled back": "ROLLED_BACK"}
_PUBLISHED: tuple[State, ...] = ("PUBLISHED",)
_BEFORE_PUBLISHED = STATES[: STATES.index("PUBLISHED")]
_BATCHES = select(tables.batches.c.batch, tables.batches.c.state, tables.batches.c.fence, tables.batches.c.ended)


class Batches:
    """The batches of a journal. A batch is finished in the state `last`; at most one may be unpublished."""

    def __init__(self, journal: Journal, last: State = "RECEIPTED") -> None:
        """Name the journal; nothing is opened or created yet."""
        self.database, self.last = journal.database, last

    def open(self, request_ids: Collection[str]) -> DeletionBatch:
        """A new batch in state RECEIVED over journalled requests (none: the version is made anew for other reasons).

        Raises BatchConflict when another batch isn't published yet, RequestError when a request isn't journalled.
        """
        with self.database.writing() as connection:
            if unfinished := [batch for batch in _all(connection) if self._unpublished(batch)]:
                raise BatchConflict(
                    f"deletion batch {unfinished[0].number} is unfinished ({unfinished[0].state}): "
                    "run `amnesiac recover`"
                )
            fence = _next_fence(connection)
            number = _next(connection, tables.batches.c.batch)
            connection.execute(insert(tables.batches).values(batch=number, state="RECEIVED", fence=fence))
            for request_id in dict.fromkeys(request_ids):
                _join(connection, number, request_id)
            _note(connection, number, "RECEIVED", fence, {"requests": len(set(request_ids))})
            return _one(connection, number)

    def take_over(self, batch: DeletionBatch) -> DeletionBatch:
        """The same batch with a new fence: its former writer can't go on. For recovery, under the writer lock."""
        with self.database.writing() as connection:
            _change(connection, batch, fence=_next_fence(connection))
            return _one(connection, batch.number)

    def advance(self, batch: DeletionBatch, to: State, facts: Mapping[str, Any] | None = None) -> DeletionBatch:
        """The batch in its next state. Raises BatchConflict for any other state, StaleWriter for an old fence."""
        with self.advancing(batch, to, facts) as after:
            pass
        return after

    @contextmanager
    def advancing(
        self, batch: DeletionBatch, to: State, facts: Mapping[str, Any] | None = None
    ) -> Iterator[DeletionBatch]:
        """Advance at the end of the block, under the journal's write lock: nobody can take over meanwhile.

        An error in the block undoes it. Raises like `advance`, before the block is entered.
        """
        with self.database.writing() as connection:
            check_next(_current(connection, batch), to)
            _move(connection, batch, to, facts or {})
            yield _one(connection, batch.number)

    def abandon(self, batch: DeletionBatch, reason: str) -> DeletionBatch:
        """End a batch that isn't published: its requests wait for the next one. Raises BatchConflict, StaleWriter."""
        return self._end(batch, "abandoned", {"reason": reason}, STATES[: STATES.index("PUBLISHED")])

    @contextmanager
    def rolling_back(self, batch: DeletionBatch, facts: Mapping[str, Any]) -> Iterator[int]:
        """Yield a fence to put the version before back with; at the end of the block the batch no longer counts.

        Raises BatchConflict when keys were destroyed for the batch, or it isn't published.
        """
        with self.database.writing() as connection:
            fence = _next_fence(connection)
            _change(connection, batch, fence=fence)
            _close(connection, _one(connection, batch.number), "rolled back", facts, _PUBLISHED)
            yield fence

    def current(self) -> DeletionBatch | None:
        """The unfinished batch: the one that isn't published yet, else the oldest that waits for its erasure."""
        found = self.unfinished()
        return next((batch for batch in found if self._unpublished(batch)), found[0] if found else None)

    def unfinished(self) -> tuple[DeletionBatch, ...]:
        """All batches that aren't finished, the oldest first; all but one are published."""
        return tuple(batch for batch in self.history() if self._unfinished(batch))

    def hold(self, batch: DeletionBatch, content: Mapping[str, Any]) -> None:
        """Keep what the batch's erasure needs and its events mustn't hold (ids), until `drop`; JSON.

        Raises StaleWriter for an old fence.
        """
        with self.database.writing() as connection:
            _current(connection, batch)
            connection.execute(delete(tables.held).where(tables.held.c.batch == batch.number))
            connection.execute(insert(tables.held).values(batch=batch.number, content=json.dumps(content)))

    def held(self, batch: DeletionBatch) -> dict[str, Any] | None:
        """What `hold` kept; None if there is nothing."""
        with self.database.reading() as connection:
            query = select(tables.held.c.content).where(tables.held.c.batch == batch.number)
            content = connection.scalar(query) if connection else None
        return dict(json.loads(content)) if content else None

    def drop(self, batch: DeletionBatch) -> None:
        """Remove what `hold` kept; no copy is left in the file or its log, or in the server's tables."""
        with self.database.writing() as connection:
            self.database.will_wipe(connection)
            connection.execute(delete(tables.held).where(tables.held.c.batch == batch.number))
        self.database.wipe()

    def history(self) -> tuple[DeletionBatch, ...]:
        """All batches, the oldest first; raises DamagedStore."""
        with self.database.reading() as connection:
            return tuple(_all(connection)) if connection else ()

    def request_states(self) -> dict[str, State]:
        """The state of every request that is in a batch that counts; all others are RECEIVED."""
        counting = [batch for batch in self.history() if not batch.ended]
        return {request_id: batch.state for batch in counting for request_id in batch.request_ids}

    def _unfinished(self, batch: DeletionBatch) -> bool:
        return not batch.ended and not batch.reached(self.last)

    def _unpublished(self, batch: DeletionBatch) -> bool:
        return self._unfinished(batch) and not batch.reached("PUBLISHED")

    def _end(
        self, batch: DeletionBatch, how: Ended, facts: Mapping[str, Any], allowed: Collection[State]
    ) -> DeletionBatch:
        with self.database.writing() as connection:
            _close(connection, _current(connection, batch), how, facts, allowed)
            return _one(connection, batch.number)


def _current(connection: Connection, batch: DeletionBatch) -> DeletionBatch:
    """The batch as it is now, if the caller is still its writer."""
    found = _one(connection, batch.number)
    if found.fence != batch.fence:
        raise StaleWriter(
            f"deletion batch {batch.number} was taken over by another writer (fence {found.fence}, this one has "
            f"{batch.fence}): nothing was changed. Run `amnesiac status`"
        )
    return found


def _close(
    connection: Connection, batch: DeletionBatch, how: Ended, facts: Mapping[str, Any],
    allowed: Collection[State],
) -> None:  # fmt: skip
    if batch.ended or batch.state not in allowed:
        raise BatchConflict(f"deletion batch {batch.number} is {batch.ended or batch.state} and can't be {how}")
    _change(connection, batch, ended=how)
    _note(connection, batch.number, _NOTES[how], batch.fence, facts)


def _move(connection: Connection, batch: DeletionBatch, to: State, facts: Mapping[str, Any]) -> None:
    _change(connection, batch, state=to)
    _note(connection, batch.number, to, batch.fence, facts)


def _change(connection: Connection, batch: DeletionBatch, **values: str | int) -> None:
    connection.execute(update(tables.batches).where(tables.batches.c.batch == batch.number).values(**values))


def _note(connection: Connection, number: int, state: str, fence: int, facts: Mapping[str, Any]) -> None:
    event, at = _next(connection, tables.events.c.event), timestamp(datetime.now(UTC))
    row = {"event": event, "batch": number, "state": state, "at": at, "fence": fence}
    connection.execute(insert(tables.events).values(**row, facts=json.dumps(facts, sort_keys=True)))


def _next(connection: Connection, numbers: Column[int]) -> int:
    """One more than the last, under the write lock: a sequence would leave gaps where something is undone."""
    return int(connection.scalar(select(func.coalesce(func.max(numbers), 0))) or 0) + 1


def _next_fence(connection: Connection) -> int:
    connection.execute(update(tables.fence).values(value=tables.fence.c.value + 1))
    return int(connection.scalars(select(tables.fence.c.value)).one())


def _join(connection: Connection, number: int, request_id: str) -> None:
    named = select(tables.requests.c.number).where(tables.requests.c.request_id == request_id)
    if (found := connection.scalar(named)) is None:
        raise RequestError(f"request {request_id!r} isn't in the journal: file it first")
    connection.execute(insert(tables.members).values(batch=number, number=found))


def _one(connection: Connection, number: int) -> DeletionBatch:
    row = connection.execute(_BATCHES.where(tables.batches.c.batch == number)).one_or_none()
    if row is None:
        raise BatchConflict(f"there is no deletion batch {number} in the journal: run `amnesiac history`")
    return _batch(connection, *row)


def _all(connection: Connection) -> Iterator[DeletionBatch]:
    for row in connection.execute(_BATCHES.order_by(tables.batches.c.batch)).all():
        yield _batch(connection, *row)


def _batch(connection: Connection, number: int, state: State, fence: int, ended: Ended | None) -> DeletionBatch:
    try:
        if state not in STATES or ended not in (None, *_NOTES):
            raise ValueError(f"unknown state {state!r}")
        rows = connection.execute(_events(number)).all()
        events = tuple(Event(name, at, by, json.loads(facts)) for name, at, by, facts in rows)
    except ValueError as error:
        raise DamagedStore(f"deletion batch {number} can't be read ({error}): {REMEDY}") from error
    members = tuple(map(str, connection.scalars(_members(number))))
    return DeletionBatch(number, state, fence, ended, members, events)


def _events(number: int) -> Select[tuple[str, str, int, str]]:
    columns = tables.events.c
    found = select(columns.state, columns.at, columns.fence, columns.facts).where(columns.batch == number)
    return found.order_by(columns.event)


def _members(number: int) -> Select[tuple[str]]:
    joined = select(tables.requests.c.request_id).join(
        tables.members, tables.members.c.number == tables.requests.c.number
    )
    return joined.where(tables.members.c.batch == number).order_by(tables.requests.c.number)
