"""What only a journal on a PostgreSQL server can meet: other users and sessions, broken connections, its own files."""

import secrets
import socket
import threading
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import insert

from amnesiac.errors import SettingsError, StoreError
from amnesiac.requests import STATES, Batches, Journal, RequestDraft, copy_journal, database, tables
from amnesiac.requests import postgresql as product
from amnesiac.requests.address import server_address

SECRET = "somebody-0815"


def sample(*ids, name=None):
    return RequestDraft("samples", ids, name)


@pytest.fixture
def schema():
    return f"t_{secrets.token_hex(6)}"


@pytest.fixture
def journal(tmp_path, postgresql, schema, index):
    """With one request."""
    made = Journal(tmp_path / "journal", postgresql.url(schema))
    made.file([sample("s1", name="first")], index)
    return made


@pytest.fixture
def receipted(journal, index):
    """A request that names SECRET has its receipt, and isn't redacted yet."""
    index.loc[3, "sample_id"] = SECRET
    journal.file([sample(SECRET, name="second")], index)
    batch = Batches(journal).open(["second"])
    for state in STATES[1:]:
        batch = Batches(journal).advance(batch, state)
    Batches(journal).hold(batch, {"samples": [SECRET]})
    return journal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("here", "isn't an address: write e.g. postgresql://"),
        ("mysql://db/x", "begins with 'mysql': write e.g. postgresql://"),
        ("postgresql://u:hush@localhost/x", "holds a password.*PGPASSWORD or PGPASSFILE"),
        ("postgresql:///x?password=hush", "holds a password"),
        ("postgresql://db.example/x", r"another machine \(db.example\).*sslmode=verify-full"),
        ("postgresql:///x?host=db.example", "another machine"),
        ("postgresql:///x?schema=a%3Bdrop", "schema 'a;drop' must be"),
    ],
)
def test_an_address_that_cant_be_used_is_refused(text, reason, tmp_path, monkeypatch):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    with pytest.raises(SettingsError, match=reason) as refused:
        Journal(tmp_path, text)
    assert "hush" not in str(refused.value)


def test_an_address_says_where_the_tables_lie(monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "require")
    assert server_address("postgresql://u@db.example/x").schema == "amnesiac"
    there = server_address("postgresql://u@db.example/x?sslmode=disable&schema=mine")
    assert (there.schema, dict(there.url.query)) == ("mine", {"sslmode": "disable"})
    assert there.shown == "postgresql://u@db.example/x?schema=mine&sslmode=disable"


def test_commits_are_durable_whatever_the_servers_default(journal, postgresql):
    postgresql.sql("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        with journal.database.writing() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    finally:
        postgresql.sql("ALTER ROLE postgres RESET synchronous_commit")


def test_a_server_that_doesnt_sync_is_refused(tmp_path, postgresql, schema, index):
    made = Journal(tmp_path / "journal", postgresql.url(schema))
    for value in ("off", "on"):
        postgresql.sql(f"ALTER SYSTEM SET fsync = {value}", "SELECT pg_reload_conf()")
        while postgresql.sql("SHOW fsync") != [(value,)]:
            pass
        if value == "off":
            with pytest.raises(StoreError, match="fsync off, so a power cut would lose requests"):
                made.file([sample("s1")], index)
            assert made.requests() == ()
    assert len(made.file([sample("s1")], index).filed) == 1


def test_other_users_of_the_server_cant_read_it(journal, postgresql, schema, tmp_path):
    role = f"r_{secrets.token_hex(4)}"
    postgresql.sql(f"CREATE ROLE {role} LOGIN")
    for act in (Journal.requests, Journal.pointer):
        with pytest.raises(StoreError, match="can't be read.*permission denied"):
            act(Journal(tmp_path, postgresql.url(schema, role)))


def test_two_projects_have_a_schema_each(journal, postgresql, tmp_path, index):
    other = Journal(tmp_path / "other", postgresql.url("other_project"))
    other.file([sample("s2", name="first")], index)
    assert [r.values for r in journal.requests()] == [("s1",)]
    assert [r.values for r in other.requests()] == [("s2",)]
    assert other.salt() != journal.salt()


def test_a_project_has_one_journal(journal, postgresql, tmp_path, index):
    forgotten = Journal(journal.path.parent)  # AMNESIAC_JOURNAL isn't set any more
    for act in (forgotten.requests, lambda: forgotten.file([sample("s2")], index)):
        with pytest.raises(StoreError, match=r"lies in postgresql://.*set AMNESIAC_JOURNAL"):
            act()
    Journal(tmp_path / "file").file([sample("s2")], index)
    with pytest.raises(StoreError, match=r"deletions.sqlite is this project's journal, and postgresql://.* is empty"):
        Journal(tmp_path / "file", postgresql.url("yet_another")).file([sample("s3")], index)


# What was redacted


def tables_bytes(postgresql):
    postgresql.sql("CHECKPOINT")
    return b"".join(path.read_bytes() for path in (postgresql.data / "base").rglob("*") if path.is_file())


def test_redacted_values_are_in_none_of_the_servers_tables(receipted, postgresql):
    assert SECRET.encode() in tables_bytes(postgresql)
    pointer = receipted.pointer()
    assert receipted.redact(["second"]) == 1
    [batch] = Batches(receipted).history()
    Batches(receipted).drop(batch)
    assert SECRET.encode() not in tables_bytes(postgresql)
    assert receipted.pointer() == pointer
    assert Batches(receipted).held(batch) is None
    log = b"".join(path.read_bytes() for path in (postgresql.data / "pg_wal").iterdir() if path.is_file())
    assert SECRET.encode() in log, "docs/postgresql.md says that the write-ahead log still holds them: it mustn't lie"


def test_what_an_old_snapshot_keeps_is_told_and_wiped_later(receipted, postgresql, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
    Batches(receipted).drop(Batches(receipted).history()[0])
    with psycopg.connect(host=str(postgresql.folder), user="postgres", dbname="postgres") as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT 1")
        with pytest.raises(StoreError, match=r"1 dead rows of .* a session .* may still look at.*amnesiac recover"):
            receipted.redact(["second"])
        assert receipted.requests()[1].redacted
        assert SECRET.encode() in tables_bytes(postgresql)
    receipted.finish_wiping()
    assert SECRET.encode() not in tables_bytes(postgresql)
    files = postgresql.sql("SELECT pg_relation_filepath('pg_class')")
    receipted.finish_wiping()
    assert postgresql.sql("SELECT pg_relation_filepath('pg_class')") == files


def test_a_writer_that_waits_too_long_for_another_says_so(journal, index, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
    with journal.database.writing(), pytest.raises(StoreError, match="can't be written .*lock.*nothing was filed"):
        journal.file([sample("s2")], index)
    assert len(journal.requests()) == 1
    assert len(journal.file([sample("s2")], index).filed) == 1


def test_writers_at_once_lose_and_mix_nothing(journal, postgresql, schema, index):
    """Threads, a connection each; processes do it in test_journal (campaign)."""
    failed = []

    def file_some(number):
        mine = Journal(journal.path.parent, postgresql.url(schema))
        try:
            for k in range(5):
                mine.file([sample(f"s{k}", name=f"w{number}-{k}"), sample(f"s{k}", f"s{k + 1}")], index)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=file_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    pointers = [journal.pointer() for _ in range(5)]
    for thread in threads:
        thread.join()
    assert failed == []
    requests = journal.requests()
    assert {r.request_id for r in requests if r.request_id[0] == "w"} == {
        f"w{w}-{k}" for w in range(4) for k in range(5)
    }
    assert len(requests) == 1 + 4 * 5 + 5
    for pointer in pointers:
        assert len(journal.read_prefix(pointer)) == pointer.count


# Broken connections


def end_sessions(postgresql):
    postgresql.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'amnesiac'")


def row(number):
    return {"number": number, "request_id": f"r{number}", "kind": "samples", "items": '["s9"]',
            "received": "2026-01-01T00:00:00Z"}  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_session_that_is_ended_leaves_nothing_and_says_so(journal, postgresql, index, when):
    with (
        pytest.raises(StoreError, match="can't be written .*terminating connection.*nothing was changed"),
        journal.database.writing() as connection,
    ):
        if when == "before":
            end_sessions(postgresql)
        connection.execute(insert(tables.requests), [row(2)])
        end_sessions(postgresql)
    assert [r.request_id for r in journal.requests()] == ["first"]
    assert len(journal.file([sample("s2")], index).filed) == 1


def test_a_batch_whose_session_is_ended_at_the_swap_is_taken_up_again(journal, postgresql):
    batches = Batches(journal)
    batch = batches.open(["first"])
    for state in STATES[1 : STATES.index("PUBLISHED")]:
        batch = batches.advance(batch, state)
    with pytest.raises(StoreError, match="nothing was changed"), batches.advancing(batch, "PUBLISHED", {}):
        end_sessions(postgresql)
    assert batches.current() == batch
    assert batches.advance(batches.take_over(batch), "PUBLISHED").state == "PUBLISHED"


def test_what_was_acknowledged_survives_a_crash_of_the_server(journal, postgresql, index):
    filed = journal.file([sample("s2", name="second")], index).filed
    postgresql.restart()
    assert journal.requests()[1:] == filed
    assert len(journal.file([sample("s3")], index).filed) == 1


def test_a_server_that_isnt_there_is_named(tmp_path, index, monkeypatch):
    monkeypatch.setattr(product, "RETRIES", (0.0,))
    nobody = Journal(tmp_path / "journal", f"postgresql:///x?host={tmp_path}")
    with pytest.raises(StoreError, match=r"journal postgresql:///x.* can't be written .*nothing was filed"):
        nobody.file([sample("s1")], index)
    with pytest.raises(StoreError, match="can't be read .*try again"):
        nobody.requests()


@contextmanager
def passing_on(postgresql, lose):
    """A folder with a socket that leads to the server's, and breaks where `lose` finds something in what is sent.

    What the server answers to that arrives nowhere.
    """
    folder = postgresql.folder / f"proxy-{secrets.token_hex(3)}"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / ".s.PGSQL.5432"))
        listening.listen()
        threading.Thread(target=serve, args=(listening, postgresql.folder / ".s.PGSQL.5432", lose), daemon=True).start()
        yield folder
        listening.shutdown(socket.SHUT_RDWR)


def serve(listening, server, lose):
    while True:
        try:
            client = listening.accept()[0]
        except OSError:
            return
        threading.Thread(target=pass_on, args=(client, server, lose), daemon=True).start()


def pass_on(client, path, lose):
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(str(path))
        while said := client.recv(1 << 16):
            server.sendall(said)
            if said[:1] == b"X":
                return
            answer = whole_answer(server, said)
            if lose(said):
                return
            client.sendall(answer)


def whole_answer(server, said):
    """All messages up to ReadyForQuery, or a request for a password (none is asked for here)."""
    if len(said) == 8:  # whether TLS, or GSS, may be spoken: one byte
        return server.recv(1)
    held = b""
    while True:
        held += server.recv(1 << 16)
        place = 0
        while place + 5 <= len(held):
            kind, size = held[place : place + 1], int.from_bytes(held[place + 1 : place + 5])
            place += 1 + size
            if kind == b"Z" and place == len(held):
                return held


def test_a_commit_whose_answer_is_lost_is_asked_for(journal, postgresql, schema, index, tmp_path):
    lost = []

    def lose(said):
        if b"COMMIT" in said and not lost:
            lost.append(said)
            return True
        return False

    with passing_on(postgresql, lose) as folder:
        near = Journal(tmp_path / "near", f"postgresql://postgres@/postgres?host={folder}&schema={schema}")
        assert [r.request_id for r in near.file([sample("s5", name="lost")], index).filed] == ["lost"]
    assert len(lost) == 1
    assert [r.request_id for r in journal.requests()] == ["first", "lost"]


# From place to place


def test_a_journal_is_moved_to_a_server_and_back_with_its_pointers(receipted, postgresql, tmp_path, index):
    receipted.redact(["second"])
    there = Journal(tmp_path / "there")
    assert copy_journal(receipted.database, there.database) == 2
    assert copy_journal(receipted.database, there.database) == 2, "and once more, as after a kill"
    back = Journal(tmp_path / "back", postgresql.url(f"t_{secrets.token_hex(6)}"))
    assert copy_journal(there.database, back.database) == 2
    for copy in (there, back):
        assert copy.read_prefix(receipted.pointer()) == receipted.requests()
        assert Batches(copy).history() == Batches(receipted).history()
        assert Batches(copy).held(Batches(copy).history()[0]) == {"samples": [SECRET]}
        assert copy.file([sample("s1", name="first")], index).filed == ()
        assert Batches(copy).open(["first"]).fence == Batches(receipted).history()[0].fence + 1
    with pytest.raises(StoreError, match="holds another journal, which isn't overwritten"):
        copy_journal(receipted.database, there.database)
    with pytest.raises(StoreError, match="is no journal yet"):
        copy_journal(Journal(tmp_path / "none").database, there.database)
