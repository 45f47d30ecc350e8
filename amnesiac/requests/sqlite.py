"""The journal in a SQLite file, and what its errors mean.

WAL with synchronous=FULL: a transaction that was committed survives a power cut, one that wasn't leaves nothing, and
locks die with their process. secure_delete: what is overwritten or deleted leaves no copy in free pages.
"""

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from amnesiac.durable import sync_folder
from amnesiac.errors import DamagedStore, StoreError
from amnesiac.requests.database import BUSY_SECONDS, REMEDY, fill, refuse_old
from amnesiac.requests.elsewhere import refuse_elsewhere
from amnesiac.requests.tables import FORMAT

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_CONSTRAINT", "SQLITE_FORMAT")


class SqliteFile:
    """A journal in a private file (see `Database`)."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened or created yet."""
        self.path, self.name = path, str(path)

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """A snapshot of the journal; None where there is none yet. Raises DamagedStore, StoreError."""
        if not self._is_there():
            yield None
            return
        with self._errors("read"), self._engine().connect() as connection:
            if not self._made(connection):  # its maker died before the first commit
                yield None
                return
            connection.exec_driver_sql("BEGIN")
            yield connection
            connection.commit()

    @contextmanager
    def writing(self, otherwise: str = "nothing was changed") -> Iterator[Connection]:
        """One transaction under the file's write lock. Raises DamagedStore, StoreError."""
        if not self._is_there():
            self._make_file()
        with self._errors("written", otherwise), self._engine().connect() as connection:
            if not self._made(connection):
                self._make_tables(connection)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection  # an error leaves the block, and closing the connection undoes the transaction
            connection.commit()

    def will_wipe(self, connection: Connection) -> None:
        """Nothing: SQLite empties the log of a process that died as soon as the next one closes the file."""

    def finish_wiping(self) -> None:
        """Nothing, for the same reason."""

    def wipe(self) -> None:
        """Move the write-ahead log into the file and empty it: what was overwritten is in neither.

        Raises StoreError when another process reads for a minute.
        """
        with self._errors("written"), self._engine().connect() as connection:
            [busy, _, _] = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            if busy:
                raise StoreError(
                    f"the log of {self.path} can't be emptied while another process uses it: try again later"
                )

    def _engine(self) -> Engine:
        return _engine(self.path.absolute().as_uri())

    def _is_there(self) -> bool:
        refuse_old(self.path.parent)
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            refuse_elsewhere(self.path.parent)
            return False
        except OSError as error:
            raise StoreError(self._cant_open(error.strerror)) from error
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(self._cant_open("not a plain file"))
        return True

    def _cant_open(self, why: str | None) -> str:
        return f"{self.path} can't be opened ({why}): it must be a plain file, not a link, that you may read and write"

    def _make_file(self) -> None:
        """An empty private file: SQLite gives its log and index the same mode."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            sync_folder(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise StoreError(self._cant_open(error.strerror)) from error

    def _made(self, connection: Connection) -> bool:
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found not in (0, FORMAT):
            raise DamagedStore(
                f"{self.path} has format {found}, this version reads {FORMAT}: use the version that wrote it"
            )
        return bool(found)

    def _make_tables(self, connection: Connection) -> None:
        """Under a lock on the folder, which waits: SQLite doesn't where two processes switch to WAL at once."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self._made(connection):
                return
            connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar_one()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            fill(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}")
            connection.commit()
        finally:
            os.close(folder)

    @contextmanager
    def _errors(self, done: str, otherwise: str = "try again") -> Iterator[None]:
        """SQLite's errors as ours: damage, or a file that can't be used at the moment."""
        try:
            yield
        except DBAPIError as error:
            name = getattr(error.orig, "sqlite_errorname", "")
            if any(name.startswith(sign) for sign in _DAMAGED):
                raise DamagedStore(
                    f"{self.path} isn't a deletion journal, or was altered ({error.orig}): {REMEDY}"
                ) from error
            raise StoreError(f"{self.path} can't be {done} ({error.orig}): {otherwise}") from error


@lru_cache(maxsize=16)
def _engine(address: str) -> Engine:
    """A connection is opened for each transaction, so that none outlives a fork and no lock its user."""
    # errors name a statement's parameters unless they are hidden, and the parameters are ids
    return create_engine("sqlite://", creator=lambda: _connect(address), poolclass=NullPool, hide_parameters=True)


def _connect(address: str) -> sqlite3.Connection:
    # isolation_level None: transactions begin where BEGIN is said, and not before the first change
    connection = sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    for pragma in ("synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
