"""The address of a journal on a PostgreSQL server: what it may say, and what of it is shown."""

import os
import re
from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from amnesiac.errors import SettingsError

SCHEMA = "amnesiac"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LOCAL = (None, "", "localhost", "127.0.0.1", "::1")
_EXAMPLE = "postgresql://amnesiac@db.example:5432/deletions?sslmode=verify-full"


@dataclass(frozen=True)
class Address:
    """Server, database, user and options for the driver; `schema` holds the tables; `shown` is for messages."""

    url: URL
    schema: str
    shown: str


def server_address(text: str) -> Address:
    """The address that a text like postgresql://user@host/database?sslmode=verify-full&schema=name means.

    Raises SettingsError when it isn't one, holds a password (which belongs into PGPASSWORD or the file that PGPASSFILE
    names), or names another machine without saying by `sslmode` whether the connection is encrypted.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError(f"AMNESIAC_JOURNAL isn't an address: write e.g. {_EXAMPLE}") from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise SettingsError(f"AMNESIAC_JOURNAL begins with {url.drivername!r:.40}: write e.g. {_EXAMPLE}")
    if url.password is not None or "password" in url.query:
        raise SettingsError(
            "AMNESIAC_JOURNAL holds a password, which messages and process lists would show: leave it out, and set "
            "PGPASSWORD or PGPASSFILE in the environment"
        )
    _refuse_unsaid(url)
    schema = url.query.get("schema", SCHEMA)
    if not isinstance(schema, str) or not _NAME.fullmatch(schema):
        raise SettingsError(f"AMNESIAC_JOURNAL's schema {schema!r:.80} must be of a-z, 0-9 and _, once: mend it")
    plain = url.difference_update_query(["schema"]).set(drivername="postgresql+psycopg")
    return Address(plain, schema, url.set(drivername="postgresql").render_as_string())


def _refuse_unsaid(url: URL) -> None:
    hosts = [url.host, *_texts(url.query.get("host"))]
    near = all(host in _LOCAL or str(host).startswith("/") for host in hosts)
    if not near and "sslmode" not in url.query and "PGSSLMODE" not in os.environ:
        raise SettingsError(
            f"AMNESIAC_JOURNAL names another machine ({url.host or hosts[-1]}), and ids of people would go there in "
            "clear unless the server happens to offer TLS: add ?sslmode=verify-full (or say sslmode=disable)"
        )


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()
