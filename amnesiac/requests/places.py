"""Which database a journal's address means."""

from pathlib import Path

from amnesiac.requests.database import FILE_NAME, Database
from amnesiac.requests.sqlite import SqliteFile


def open_database(folder: Path, url: str | None = None) -> Database:
    """The SQLite file in the folder, or the PostgreSQL server at `url` (see `server_address`); opened when needed.

    Raises SettingsError when the address can't be used.
    """
    if not url:
        return SqliteFile(folder / FILE_NAME)
    from amnesiac.requests.postgresql import PostgresServer

    return PostgresServer(folder, url)
