"""A journal copied from one database to another: from the file to a server, or from a server to a file for a backup."""

from sqlalchemy import Connection, delete, func, insert, select

from amnesiac.errors import StoreError
from amnesiac.requests import tables
from amnesiac.requests.database import Database


def copy_journal(source: Database, target: Database) -> int:
    """Copy all tables in one transaction, under the write locks of both; how many requests there are.

    Salt and numbers stay, so pointers, receipts and keyed hashes stay valid. Copied again after a crash it changes
    nothing. Raises StoreError when there is nothing to copy, or the target holds another journal.
    """
    with source.reading() as found:
        if found is None:
            raise StoreError(f"{source.name} is no journal yet: there is nothing to copy")
    with source.writing() as old, target.writing("nothing was copied") as new:
        if _content(old) != _content(new):
            _refuse_filled(new, target.name)
            for table in (tables.salt, tables.fence):
                new.execute(delete(table))
            for table in tables.metadata.sorted_tables:
                if rows := [dict(row) for row in old.execute(select(table)).mappings()]:
                    new.execute(insert(table), rows)
        return int(old.scalar(select(func.count()).select_from(tables.requests)) or 0)


def _content(connection: Connection) -> list[list[tuple[object, ...]]]:
    """Every row of every table."""
    return [sorted(map(tuple, connection.execute(select(table)))) for table in tables.metadata.sorted_tables]


def _refuse_filled(connection: Connection, name: str) -> None:
    for table in (tables.requests, tables.batches):
        if connection.scalar(select(func.count()).select_from(table)):
            raise StoreError(f"{name} holds another journal, which isn't overwritten: name an empty place (?schema=…)")
