"""The deletion journal's tables, the same in SQLite and in PostgreSQL, and the statements that both read with."""

from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, select, text

FORMAT = 2
metadata = MetaData()

salt = Table("salt", metadata, Column("salt", Text, nullable=False), sqlite_strict=True)
requests = Table(
    "requests",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("request_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("items", Text, nullable=False),
    Column("received", Text, nullable=False),
    Column("reason", Text),
    Column("redacted", Integer, nullable=False, server_default=text("0")),
    sqlite_strict=True,
)
batches = Table(
    "batches",
    metadata,
    Column("batch", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("ended", Text),
    sqlite_strict=True,
)
members = Table(
    "members",
    metadata,
    Column("batch", Integer, ForeignKey("batches.batch"), primary_key=True, autoincrement=False),
    Column("number", Integer, ForeignKey("requests.number"), primary_key=True, autoincrement=False),
    sqlite_strict=True,
)
events = Table(
    "events",
    metadata,
    Column("event", Integer, primary_key=True, autoincrement=False),
    Column("batch", Integer, ForeignKey("batches.batch"), nullable=False),
    Column("state", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("facts", Text, nullable=False),
    sqlite_strict=True,
)
held = Table(
    "held",
    metadata,
    Column("batch", Integer, ForeignKey("batches.batch"), primary_key=True, autoincrement=False),
    Column("content", Text, nullable=False),
    sqlite_strict=True,
)
fence = Table("fence", metadata, Column("value", Integer, nullable=False), sqlite_strict=True)

ERASABLE = (requests, held)
"""What `Journal.redact` and `Batches.drop` take values out of."""
in_order = select(
    requests.c.number, requests.c.request_id, requests.c.kind, requests.c["items"], requests.c.received,
    requests.c.reason, requests.c.redacted,
).order_by(requests.c.number)  # fmt: skip
receipted = (
    select(requests.c.request_id)
    .join(members, members.c.number == requests.c.number)
    .join(batches, batches.c.batch == members.c.batch)
    .where(batches.c.state == "RECEIPTED")
)
