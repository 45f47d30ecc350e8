"""Prefect's server, as `amnesiac serve` and `dashboard` start it, on a PostgreSQL database."""

from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from prefect import flow

from tasks import prefect_server
from tasks.prefect_server import free_port, local_server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    return tmp_path / ".prefect"


@pytest.mark.campaign  # an empty database is migrated
def test_a_flow_runs_on_a_server_with_a_postgresql_database(postgresql, home, monkeypatch) -> None:
    postgresql.sql("CREATE DATABASE prefect")
    address = f"postgresql+asyncpg://postgres@/prefect?host={quote(str(postgresql.folder), safe='')}"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", address)

    @flow(name="light")
    def light() -> int:
        return 3

    with local_server(free_port()):
        assert light() == 3
    with psycopg.connect(host=str(postgresql.folder), user="postgres", dbname="prefect") as connection:
        rows = connection.execute("SELECT flow.name, state_type::text FROM flow_run JOIN flow ON flow.id = flow_id")
        assert rows.fetchall() == [("light", "COMPLETED")]
    assert not (home / "prefect.db").exists()


def test_the_end_of_a_servers_log_is_told_without_passwords(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("can't connect to postgresql+asyncpg://prefect:hush@db.example:5432/prefect\nat http://here/api\n")
    assert prefect_server._tail(log).splitlines()[1:] == [
        "can't connect to postgresql+asyncpg://prefect:***@db.example:5432/prefect",
        "at http://here/api",
    ]
