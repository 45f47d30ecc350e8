"""The deletion journal's SQLite file: how it is opened, what its tables are, and what its errors mean.

WAL with synchronous=FULL: a transaction that was committed survives a power cut, one that wasn't leaves nothing, and
locks die with their process. secure_delete: what is overwritten or deleted leaves no copy in free pages.
"""

import fcntl
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from amnesiac.durable import sync_folder
from amnesiac.errors import DamagedStore, StoreError

FILE_NAME, OLD_NAME = "deletions.sqlite", "requests.jsonl"
FORMAT = 2
BUSY_SECONDS = 60.0
REMEDY = "restore the journal from a backup (git doesn't hold it)"
_TABLES = (
    "CREATE TABLE salt (salt TEXT NOT NULL) STRICT",
    """CREATE TABLE requests (
        number INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, items TEXT NOT NULL,
        received TEXT NOT NULL, reason TEXT, redacted INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE batches (
        batch INTEGER PRIMARY KEY, state TEXT NOT NULL, fence INTEGER NOT NULL, ended TEXT) STRICT""",
    """CREATE TABLE members (
        batch INTEGER NOT NULL REFERENCES batches, number INTEGER NOT NULL REFERENCES requests,
        PRIMARY KEY (batch, number)) STRICT""",
    """CREATE TABLE events (
        event INTEGER PRIMARY KEY, batch INTEGER NOT NULL REFERENCES batches, state TEXT NOT NULL, at TEXT NOT NULL,
        fence INTEGER NOT NULL, facts TEXT NOT NULL) STRICT""",
    "CREATE TABLE held (batch INTEGER PRIMARY KEY REFERENCES batches, content TEXT NOT NULL) STRICT",
    "CREATE TABLE fence (value INTEGER NOT NULL) STRICT",
    "INSERT INTO fence VALUES (0)",
)
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_CONSTRAINT", "SQLITE_FORMAT")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A snapshot of the journal; None where there is none yet.

    Raises DamagedStore when the file isn't a journal, StoreError when it can't be opened or is an old one.
    """
    refuse_old(path)
    if not _is_there(path):
        yield None
        return
    with _sqlite_errors(path, "read"), closing(_connect(path)) as connection:
        if not _made(connection, path):  # its maker died before the first commit
            yield None
            return
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


@contextmanager
def writing(path: Path, otherwise: str = "nothing was changed") -> Iterator[sqlite3.Connection]:
    """One transaction under the journal's write lock; committed at the end, undone by an error. Makes the journal.

    Raises like `reading`, and StoreError (saying `otherwise`) when another process holds the lock for a minute or the
    disk is full.
    """
    refuse_old(path)
    if not _is_there(path):
        _make_file(path)
    with _sqlite_errors(path, "written", otherwise), closing(_connect(path)) as connection:
        if not _made(connection, path):
            _make_tables(connection, path)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk has undone it already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def wipe_log(path: Path) -> None:
    """Move the write-ahead log into the file and empty it: what was overwritten is in neither.

    Raises StoreError when another process reads for a minute.
    """
    with _sqlite_errors(path, "written"), closing(_connect(path)) as connection:
        [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreError(f"the log of {path} can't be emptied while another process uses it: try again later")


def refuse_old(path: Path) -> None:
    """Raise StoreError when the folder holds a journal of before SQLite."""
    old = path.with_name(OLD_NAME)
    if old.exists():
        raise StoreError(
            f"{old} is a journal of an earlier version of amnesiac, which this one doesn't read: file its requests "
            "again (`amnesiac request add FILE --received DATE`), then move it away and remove "
            "pipeline_data/requests.json, which points into it"
        )


def _is_there(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(_cant_open(path, error.strerror)) from error
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(_cant_open(path, "not a plain file"))
    return True


def _cant_open(path: Path, why: str | None) -> str:
    return f"{path} can't be opened ({why}): it must be a plain file, not a link, that you may read and write"


def _make_file(path: Path) -> None:
    """An empty private file: SQLite gives its log and index the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    except OSError as error:
        raise StoreError(_cant_open(path, error.strerror)) from error


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    for pragma in ("synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _made(connection: sqlite3.Connection, path: Path) -> bool:
    [found] = connection.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):
        raise DamagedStore(f"{path} has format {found}, this version reads {FORMAT}: use the version that wrote it")
    return bool(found)


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Under a lock on the folder, which waits: SQLite doesn't where two processes switch to WAL at once."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if _made(connection, path):
            return
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("INSERT INTO salt VALUES (?)", (secrets.token_hex(32),))
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    finally:
        os.close(folder)


@contextmanager
def _sqlite_errors(path: Path, done: str, otherwise: str = "try again") -> Iterator[None]:
    """SQLite's errors as ours: damage, or a file that can't be used at the moment."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if any(name.startswith(sign) for sign in _DAMAGED):
            raise DamagedStore(f"{path} isn't a deletion journal, or was altered ({error}): {REMEDY}") from error
        raise StoreError(f"{path} can't be {done} ({error}): {otherwise}") from error
