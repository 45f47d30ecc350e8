"""The journal on a PostgreSQL server (13 or later): the same promises as the SQLite file's, kept by other means.

One writer at a time by a lock on the table `fence`, which is taken before the transaction's snapshot, so that a writer
sees what the one before has committed; reading sees one snapshot. synchronous_commit is on whatever the server's
default. A commit whose answer was lost is asked for afterwards. What was redacted stays in dead rows until VACUUM FULL
writes the tables anew, which `wipe` does; what stays in the server's log and backups is in docs/postgresql.md.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from amnesiac.errors import DamagedStore, SettingsError, StoreError
from amnesiac.requests import database
from amnesiac.requests.address import Address, server_address
from amnesiac.requests.database import FILE_NAME, REMEDY, fill
from amnesiac.requests.elsewhere import note_elsewhere
from amnesiac.requests.tables import ERASABLE, FORMAT

RETRIES = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts to reach a server that is being started again
_OLDEST = 130000
_DAMAGED = ("22", "23", "42", "XX")  # classes of SQLSTATE: of data, constraints, missing tables, corruption
_REFUSED = "42501"
_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
# a client that is frozen in a transaction loses it, and its lock, after five minutes
_SAFELY = (
    "SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '{seconds:.0f}s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '300s'"
)
_FIRST_NUMBER = re.compile(r"\d+")


class PostgresServer:
    """A journal in a schema of a database (see `Database`)."""

    def __init__(self, folder: Path | None, url: str) -> None:
        """Name them; nothing is opened or created yet. Raises SettingsError for an address that can't be used.

        folder: of the project's journal, in which a note is left that the journal lies here; None for no project's
        """
        self.folder, self._address = folder, server_address(url)
        self.name = self._address.shown

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """A snapshot of the journal; None where there is none yet. Raises DamagedStore, StoreError."""
        with self._errors("read"), self._connected(_BEGIN) as connection:
            yield connection if self._made(connection) else None

    @contextmanager
    def writing(self, otherwise: str = "nothing was changed") -> Iterator[Connection]:
        """One transaction under the journal's write lock. Raises DamagedStore, StoreError."""
        with self._errors("written", otherwise):
            self._make()
            with self._connected(_BEGIN, self._safely(), f"LOCK TABLE {self._of('fence')} IN EXCLUSIVE MODE") as one:
                number = one.scalar(text("SELECT pg_current_xact_id()::text"))
                yield one
                self._commit(one, str(number))

    def will_wipe(self, connection: Connection) -> None:
        """Note that `wipe` has to follow."""
        connection.exec_driver_sql(f"UPDATE {self._of('journal_format')} SET unwiped = 1")

    def finish_wiping(self) -> None:
        """`wipe`, where a process was killed before the end of it."""
        with self.reading() as connection:
            unwiped = connection and connection.exec_driver_sql(f"SELECT unwiped FROM {self._of('journal_format')}")
            wanted = bool(unwiped and unwiped.scalar_one())
        if wanted:
            self.wipe()

    def wipe(self) -> None:
        """Write the tables anew without their dead rows.

        Raises StoreError when another session of the server holds an old snapshot, or one of the tables, for a minute.
        """
        with self._errors("wiped", "what was redacted stays in dead rows until the next run wipes them"):
            until = time.monotonic() + database.BUSY_SECONDS
            while kept := sum(map(self._rewritten, [table.name for table in ERASABLE])):
                if time.monotonic() > until:
                    raise StoreError(
                        f"{kept} dead rows of {self.name} can't be removed, since a session of this server (a long "
                        "transaction, a dump, a replication slot) may still look at them: end it (see "
                        "pg_stat_activity), then run `amnesiac recover`"
                    )
                time.sleep(1)
            with self._connected(_BEGIN, self._safely()) as connection:
                connection.exec_driver_sql(f"UPDATE {self._of('journal_format')} SET unwiped = 0")
                connection.commit()

    def _rewritten(self, name: str) -> int:
        """Write one table anew; how many of its dead rows had to be kept."""
        details: list[str] = []
        with _reached(_engine(self._address)) as connection:
            plain = connection.execution_options(isolation_level="AUTOCOMMIT")  # VACUUM runs in no transaction
            driver: Any = plain.connection.driver_connection
            driver.add_notice_handler(lambda notice: details.append(notice.message_detail or ""))
            plain.exec_driver_sql(f"SET lock_timeout = '{database.BUSY_SECONDS:.0f}s'")
            plain.exec_driver_sql(f"VACUUM (FULL, VERBOSE) {self._of(name)}")
        # "N dead row versions cannot be removed yet", in the server's language: one number in its first line
        counts = [_FIRST_NUMBER.search(detail.partition("\n")[0]) for detail in details if detail]
        if not counts or None in counts:
            raise StoreError(f"{self.name} doesn't say what VACUUM has left: run `amnesiac recover`")
        return sum(int(count[0]) for count in counts if count)

    def _make(self) -> None:
        """The schema and its tables, unless they are there; under a lock, since two may want to make them at once."""
        with self._connected(_BEGIN) as connection:
            if self._made(connection):
                return
        if self.folder:
            self._refuse_two(self.folder / FILE_NAME)
            note_elsewhere(self.folder, self.name)
        with self._connected(self._safely(), "SELECT pg_advisory_xact_lock(hashtext('amnesiac journal'))") as one:
            if self._made(one):
                return
            self._refuse_unsafe(one)
            if not one.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": self._address.schema}):
                one.exec_driver_sql(f"CREATE SCHEMA {self._address.schema}")
            fill(one)
            one.exec_driver_sql(f"CREATE TABLE {self._of('journal_format')} (format INTEGER, unwiped INTEGER)")
            one.exec_driver_sql(f"INSERT INTO {self._of('journal_format')} VALUES ({FORMAT}, 0)")
            one.commit()

    def _refuse_two(self, path: Path) -> None:
        if path.exists():
            raise StoreError(
                f"{path} is this project's journal, and {self.name} is empty: move it there by `amnesiac journal "
                "move`, or unset AMNESIAC_JOURNAL"
            )

    def _refuse_unsafe(self, connection: Connection) -> None:
        if (version := int(connection.scalar(text("SHOW server_version_num")) or 0)) < _OLDEST:
            raise StoreError(f"{self.name} is PostgreSQL {version // 10000}: the journal needs 13 or later")
        if connection.scalar(text("SHOW fsync")) != "on":
            raise StoreError(f"{self.name} runs with fsync off, so a power cut would lose requests: switch it on")

    def _made(self, connection: Connection) -> bool:
        name = self._of("journal_format")
        if not connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}):
            return False
        found = connection.exec_driver_sql(f"SELECT format FROM {name}").scalars().all()
        if found != [FORMAT]:
            raise DamagedStore(
                f"{self.name} has format {', '.join(map(str, found))}, this version reads {FORMAT}: "
                "use the one that wrote it"
            )
        return True

    def _commit(self, connection: Connection, number: str) -> None:
        """Commit; where the connection breaks meanwhile, ask the server what has become of the transaction."""
        try:
            connection.commit()
        except OperationalError:
            status = self._status(number)
            if status == "committed":
                return
            if status != "aborted":
                raise StoreError(
                    f"the connection to {self.name} broke in a commit, and it doesn't say whether that was done "
                    f"({status}): run it again, since nothing is filed or noted twice"
                ) from None
            raise

    def _status(self, number: str) -> str:
        """committed, aborted or in progress (its process takes some time to end), or that it isn't known."""
        query, found = text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))"), "in progress"
        for pause in (*RETRIES, 0.0):
            with self._connected() as connection:
                found = str(connection.scalar(query, {"number": number}) or "unknown")
            if found != "in progress":
                break
            time.sleep(pause)
        return found

    @contextmanager
    def _connected(self, *first: str) -> Iterator[Connection]:
        """A transaction on a connection of its own; what isn't committed in it is undone."""
        with _reached(_engine(self._address), first) as connection:
            yield connection

    def _safely(self) -> str:
        return _SAFELY.format(seconds=database.BUSY_SECONDS)

    def _of(self, table: str) -> str:
        return f"{self._address.schema}.{table}"

    @contextmanager
    def _errors(self, done: str, otherwise: str = "try again") -> Iterator[None]:
        """The server's errors as ours: damage, or a server that can't be used at the moment."""
        try:
            yield
        except DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None) or ""
            said = str(error.orig).partition("\n")[0]  # what follows may quote values of a row
            if code != _REFUSED and code[:2] in _DAMAGED:
                raise DamagedStore(
                    f"{self.name} isn't a deletion journal, or was altered ({said}): {REMEDY}"
                ) from error
            raise StoreError(f"the journal {self.name} can't be {done} ({said}): {otherwise}") from error


@contextmanager
def _reached(engine: Engine, first: Sequence[str] = ()) -> Iterator[Connection]:
    """Connect, and say what comes first; again where the server isn't there, as when it is started anew."""
    connection = _attempt(engine, first)
    try:
        yield connection
    finally:
        connection.close()


def _attempt(engine: Engine, first: Sequence[str]) -> Connection:
    for pause in RETRIES:
        try:
            return _begun(engine, first)
        except OperationalError as error:
            if not _gone(error):
                raise
            time.sleep(pause)
    return _begun(engine, first)


def _gone(error: OperationalError) -> bool:
    """Whether the connection is at fault, not what was said on it (a lock that isn't free has its SQLSTATE, too)."""
    code = getattr(error.orig, "sqlstate", None)
    return code is None or code.startswith(("08", "57P"))


def _begun(engine: Engine, first: Sequence[str]) -> Connection:
    connection = engine.connect()
    try:
        for statement in first:
            connection.exec_driver_sql(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@lru_cache(maxsize=16)
def _engine(address: Address) -> Engine:
    """A connection is opened for each transaction, so that none outlives a fork, and no lock its user."""
    try:
        engine = create_engine(
            address.url,
            poolclass=NullPool,
            hide_parameters=True,  # errors name a statement's parameters otherwise, and these are ids
            connect_args={"prepare_threshold": None, "connect_timeout": 10, "application_name": "amnesiac"},
        )
    except ImportError as error:
        raise SettingsError("a journal on PostgreSQL needs psycopg: run `pip install 'amnesiac[postgres]'`") from error
    return engine.execution_options(schema_translate_map={None: address.schema})
