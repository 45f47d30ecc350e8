"""Where the deletion journal's tables lie: a SQLite file in the project (the default), or a PostgreSQL server.

Both keep the same promises. A transaction that was committed survives a power cut, one that wasn't leaves nothing; one
process writes at a time, and its lock dies with it; what was redacted is wiped.
"""

import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, insert

from amnesiac.errors import StoreError
from amnesiac.requests import tables

FILE_NAME, OLD_NAME = "deletions.sqlite", "requests.jsonl"
BUSY_SECONDS = 60.0
REMEDY = "restore the journal from a backup (git doesn't hold it)"


class Database(Protocol):
    """The journal's tables, to be read and written in transactions."""

    name: str
    """For messages: a path, or an address without password."""

    def reading(self) -> AbstractContextManager[Connection | None]:
        """A snapshot of the journal; None where there is none yet.

        Raises DamagedStore when it isn't a journal, StoreError when it can't be opened.
        """
        ...

    def writing(self, otherwise: str = "nothing was changed") -> AbstractContextManager[Connection]:
        """One transaction under the journal's write lock; committed at the end, undone by an error. Makes the journal.

        Raises like `reading`, and StoreError (saying `otherwise`) when another process holds the lock for a minute or
        it can't be written.
        """
        ...

    def will_wipe(self, connection: Connection) -> None:
        """Note, in a transaction that takes values out, that `wipe` has to follow."""
        ...

    def wipe(self) -> None:
        """Remove copies of values that were taken out: logs, dead rows. Raises StoreError where others use them."""
        ...

    def finish_wiping(self) -> None:
        """`wipe`, where a process was killed between `will_wipe` and the end of it."""
        ...


def refuse_old(folder: Path) -> None:
    """Raise StoreError when the folder holds a journal of before SQLite."""
    old = folder / OLD_NAME
    if old.exists():
        raise StoreError(
            f"{old} is a journal of an earlier version of amnesiac, which this one doesn't read: file its requests "
            "again (`amnesiac request add FILE --received DATE`), then move it away and remove "
            "pipeline_data/requests.json, which points into it"
        )


def fill(connection: Connection) -> None:
    """A new journal's tables and first rows, in the transaction that is open."""
    tables.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(tables.fence).values(value=0))
    connection.execute(insert(tables.salt).values(salt=secrets.token_hex(32)))
