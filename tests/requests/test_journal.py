import hashlib
import hmac
import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amnesiac.errors import DamagedStore, KeyDestroyed, RequestError, SpecMismatch, StoreError, UnknownSample
from amnesiac.requests import (
    STATES,
    Batches,
    Journal,
    Pointer,
    RequestDraft,
    draw_random,
    read_pointer,
    resolve,
    value_hmac,
    write_pointer,
)
from amnesiac.requests.postgresql import PostgresServer

FILE = "deletions.sqlite"
EMPTY = hashlib.sha256(b"").hexdigest()
FORMAT_9 = ("PRAGMA user_version=9", "UPDATE journal_format SET format = 9")
only_sqlite = pytest.mark.parametrize("address", ["sqlite"], indirect=True)
on_both = pytest.mark.parametrize(  # tests/requests/test_postgresql.py has a cheaper form
    "address", ["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)], indirect=True
)
PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}


def sample(*ids, name=None):
    return RequestDraft("samples", ids, name)


@pytest.fixture
def journal(tmp_path, address):
    return Journal(tmp_path / "journal", address)


@pytest.fixture
def three(journal, index):
    """A journal of three requests."""
    journal.file([sample("s1"), RequestDraft("subject", ("p2",), "t-2"), RequestDraft("class", ("two",))], index)
    return journal


def test_filed_requests_come_back_in_order(three, address):
    requests = three.requests()
    assert [(r.kind, r.values) for r in requests] == [("samples", ("s1",)), ("subject", ("p2",)), ("class", ("two",))]
    assert requests[1].request_id == "t-2"
    assert requests == Journal(three.path.parent, address).requests()
    assert three.requests(2) == requests[:2]
    assert three.requests(0) == ()


def test_a_missing_journal_is_empty(journal):
    assert journal.requests() == ()
    assert journal.pointer() == Pointer(0, EMPTY)
    assert journal.read_prefix(journal.pointer()) == ()
    assert not journal.path.parent.exists()


def test_filing_nothing_creates_nothing(journal, index):
    assert journal.file([], index).filed == ()
    assert not journal.path.parent.exists()


@only_sqlite
def test_the_journal_is_private(three):
    assert three.path.stat().st_mode & 0o777 == 0o600
    assert three.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_same_request_twice_is_one_request(three, index):
    before = three.requests()
    again = three.file([sample("s1", "s1"), RequestDraft("subject", ("p2",), "t-2")], index)
    assert again.filed == ()
    assert again.already == three.requests(2)
    assert three.requests() == before


def test_the_same_request_twice_in_one_batch_is_one_request(journal, index):
    result = journal.file([sample("s1", "s2"), sample("s3"), sample("s2", "s1")], index)
    assert [r.values for r in result.filed] == [("s1", "s2"), ("s3",)]
    assert result.already == result.filed[:1]
    assert journal.requests() == result.filed


def test_the_same_draw_twice_is_one_request(journal, index):
    first = journal.file([draw_random(index, seed=1, count=3)], index)
    assert journal.file([draw_random(index, seed=1, count=3)], index).already == first.filed
    assert resolve(first.filed, index).by_request == {first.filed[0].request_id: 3}
    assert journal.requests()[0].reason == "random draw of 3 of 12 samples, seed 1"


def test_an_id_used_for_something_else_is_refused_and_nothing_filed(three, index):
    before = three.requests()
    with pytest.raises(RequestError, match="request_id 't-2' is already used for another request .*nothing was filed"):
        three.file([sample("s7"), sample("s2", name="t-2")], index)
    with pytest.raises(RequestError, match="'new' is already used"):
        three.file([sample("s7", name="new"), sample("s8", name="new")], index)
    assert three.requests() == before


def test_unknown_ids_are_refused_and_nothing_filed(three, index):
    before = three.requests()
    with pytest.raises(UnknownSample, match=r"sample 's99', subject 'nobody' \(2 unknown in all\)"):
        three.file([sample("s7"), sample("s99"), RequestDraft("subject", ("nobody",))], index)
    assert three.requests() == before


def test_requests_that_would_leave_nothing_are_refused_before_they_are_journalled(three, index):
    before = three.requests()
    three.file([RequestDraft("class", ("0",))], index)
    with pytest.raises(RequestError, match="name all 12 samples of the train split"):
        three.file([RequestDraft("class", ("1",))], index)
    assert len(three.requests()) == 4
    assert three.requests(3) == before


def test_ids_of_two_journals_differ(tmp_path, index):
    ids = [Journal(tmp_path / name).file([sample("s1")], index).filed[0].request_id for name in ("a", "b")]
    assert ids[0] != ids[1]
    assert all(len(name) == 34 and name.startswith("r-") for name in ids)


# Damage, and files that can't be used


def execute(journal, *statements):
    with journal.database.writing() as connection:
        if isinstance(journal.database, PostgresServer):
            connection.exec_driver_sql(f"SET LOCAL search_path TO {journal.database.name.rpartition('=')[2]}")
        for statement in statements:
            connection.exec_driver_sql(statement)


@only_sqlite
def test_it_survives_a_power_cut_and_leaves_no_copies(three):
    with three.database.writing() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS}
        tables = connection.exec_driver_sql("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").all()
    assert found == PRAGMAS
    assert {name for name, strict in tables if not name.startswith("sqlite_")} >= {"requests", "batches", "events"}
    assert all(strict for name, strict in tables if not name.startswith("sqlite_"))


@only_sqlite
def test_the_log_beside_it_is_private_too(three):
    with three.database.writing() as connection:
        connection.exec_driver_sql("UPDATE fence SET value = value + 1")
        beside = {path.name: path.stat().st_mode & 0o777 for path in three.path.parent.iterdir()}
    assert beside == dict.fromkeys([FILE, f"{FILE}-wal", f"{FILE}-shm"], 0o600)


@only_sqlite
def test_a_maker_that_died_leaves_an_empty_journal(journal, index):
    journal.path.parent.mkdir()
    journal.path.touch()
    assert journal.requests() == ()
    assert journal.pointer() == Pointer(0, EMPTY)
    journal.file([sample("s4")], index)
    assert [r.values for r in journal.requests()] == [("s4",)]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE requests SET items = '[\"p2\"' WHERE number = 2", "request 2 .*delimiter"),
        ("UPDATE requests SET items = '\"p2\"' WHERE number = 2", "request 2 .*aren't a list"),
        ("UPDATE requests SET items = '[]' WHERE number = 2", "request 2 .*names nothing"),
        ("UPDATE requests SET kind = 'all' WHERE number = 3", "request 3 .*unknown kind"),
        ("UPDATE requests SET received = 'yesterday' WHERE number = 3", "request 3 .*received 'yesterday'"),
        ("DELETE FROM requests WHERE number = 2", "request 2 .*before it are missing"),
        ("DELETE FROM salt", "has lost its salt"),
        ("UPDATE salt SET salt = ''", "has lost its salt"),
        ("ALTER TABLE requests RENAME TO gone", "isn't a deletion journal, or was altered .*(no such table|not exist)"),
        (FORMAT_9, "has format 9, this version reads 2"),
    ],
)
def test_what_cant_be_read_is_damage_and_named(three, index, address, statement, reason):
    execute(three, statement[bool(address)] if isinstance(statement, tuple) else statement)
    for use in (three.requests, lambda: three.file([sample("s9")], index)):
        with pytest.raises(DamagedStore, match=rf"(?i){reason}"):
            use()


@only_sqlite
def test_a_file_that_is_no_database_is_refused_and_left_alone(three, index):
    damaged = b"SQLite format 3\0" + bytes(range(256)) * 40
    three.path.write_bytes(damaged)
    for use in (three.requests, lambda: three.file([sample("s9")], index)):
        with pytest.raises(DamagedStore, match=r"deletions\.sqlite isn't a deletion journal.*restore the journal"):
            use()
    assert three.path.read_bytes() == damaged


@only_sqlite
def test_a_journal_that_is_a_link_or_no_file_is_refused(three, index, tmp_path):
    elsewhere = three.path.rename(tmp_path / "elsewhere")
    three.path.symlink_to(elsewhere)
    for use in (three.requests, lambda: three.file([sample("s9")], index)):
        with pytest.raises(StoreError, match=r"deletions\.sqlite can't be opened .*not a link"):
            use()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be opened"):
        Journal(tmp_path / "file").file([sample("s9")], index)


@only_sqlite
def test_a_journal_of_an_earlier_version_is_named(journal, index):
    journal.path.parent.mkdir()
    (journal.path.parent / "requests.jsonl").write_text("{}")
    for use in (journal.requests, lambda: journal.file([sample("s9")], index)):
        with pytest.raises(StoreError, match=r"requests\.jsonl is a journal of an earlier version.*file its requests"):
            use()
    assert not journal.path.exists()


@only_sqlite
def test_a_full_disk_files_nothing(three, index):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, limit[1]))  # Python ignores SIGXFSZ: writing fails instead
    try:
        with pytest.raises(StoreError, match=r"can't be written \(.*\): nothing was filed"):
            three.file([sample(*(f"s{k}" for k in range(11)), name=f"{'n' * 60}{k}") for k in range(200)], index)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(three.requests()) == 3
    assert len(three.file([sample("s9")], index).filed) == 1
    assert len(three.requests()) == 4


@only_sqlite
def test_file_and_folder_are_synced_when_they_are_made(journal, index, monkeypatch):
    synced, real = [], os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    journal.file([sample("s1")], index)
    assert synced == [journal.path.parent, journal.path.parent.parent]


# When it came in


def test_the_time_of_receipt_can_be_given_and_not_lie_in_the_future(journal, index):
    journal.file([sample("s1")], index, received=datetime(2026, 1, 31, 12, tzinfo=UTC))
    [request] = journal.requests()
    assert request.received == "2026-01-31T12:00:00Z"
    with pytest.raises(RequestError, match="received 2999-01-01T00:00:00Z lies in the future"):
        journal.file([sample("s2")], index, received=datetime(2999, 1, 1, tzinfo=UTC))


# Redaction


@pytest.fixture
def receipted(three):
    """Two of the three requests have their receipts."""
    batches = Batches(three)
    batch = batches.open([request.request_id for request in three.requests(2)])
    for state in STATES[1:]:
        batch = batches.advance(batch, state)
    return three


def all_bytes(journal):
    return b"".join(path.read_bytes() for path in journal.path.parent.iterdir())


@only_sqlite
def test_redacted_values_are_gone_and_pointers_stay(receipted, index):
    receipted.file([draw_random(index, seed=1, count=3)], index)
    pointer, one, before = receipted.pointer(), receipted.requests()[1], receipted.requests()
    assert b"p2" in all_bytes(receipted)
    assert receipted.redact([one.request_id]) == 1
    assert b"p2" not in all_bytes(receipted)
    [_, after, *_] = receipted.read_prefix(pointer)
    assert after.values == (value_hmac(receipted.salt(), "subject", "p2"),)
    assert (after.request_id, after.kind, after.received) == (one.request_id, one.kind, one.received)
    assert receipted.pointer() == pointer
    assert receipted.requests()[0] == before[0], "the others stay"
    assert receipted.redact([one.request_id]) == 0
    with pytest.raises(KeyDestroyed, match="1 requests were carried out, erased and redacted, the first 't-2'"):
        resolve(receipted.requests(), index)


def test_a_redacted_request_filed_again_is_the_first(receipted, index):
    first, second, _ = receipted.requests()
    receipted.redact([first.request_id, second.request_id])
    again = receipted.file([sample("s1"), RequestDraft("subject", ("p2",), "t-2")], index)
    assert (again.filed, [r.request_id for r in again.already]) == ((), [first.request_id, "t-2"])
    with pytest.raises(RequestError, match="request_id 't-2' is already used"):
        receipted.file([RequestDraft("subject", ("p3",), "t-2")], index)
    assert len(receipted.file([sample("s1", "s2")], index).filed) == 1


def test_only_what_is_receipted_is_redacted(receipted):
    before = receipted.requests()
    for missing in (before[2].request_id, "nobody"):
        with pytest.raises(RequestError, match=rf"1 requests aren't receipted yet or unknown, the first '{missing}'"):
            receipted.redact([before[0].request_id, missing])
    assert receipted.requests() == before


def test_what_is_gone_already_counts_when_nothing_would_be_left(receipted, index):
    receipted.redact([request.request_id for request in receipted.requests(2)])
    with pytest.raises(RequestError, match="name all 12 samples of the train split"):
        receipted.file([sample(*(f"s{k}" for k in range(3, 12)))], index, forgotten=[0, 1])
    assert len(receipted.file([sample(*(f"s{k}" for k in range(3, 12)))], index, forgotten=[0]).filed) == 1


def test_a_sample_has_the_same_hmac_however_it_was_named(three):
    salt = three.salt()
    assert value_hmac(salt, "samples", "s1") == value_hmac(salt, "random", "s1") != value_hmac(salt, "subject", "s1")
    assert len(value_hmac(salt, "class", "s1")) == 64


def test_a_journal_that_is_not_there_has_no_salt(journal):
    with pytest.raises(SpecMismatch, match="doesn't exist yet"):
        journal.salt()


# Pointers


def test_a_pointer_names_a_prefix_for_ever(three, index):
    pointer, requests = three.pointer(), three.requests()
    three.file([sample("s9")], index)
    assert three.pointer() != pointer
    assert three.read_prefix(pointer) == requests
    lines = [[r.request_id, r.kind, hmacs(three, r), r.received] for r in requests]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    assert pointer == Pointer(3, hashlib.sha256(text.encode()).hexdigest())


def hmacs(journal, request):
    """Twin of the product's: the standard library's other way to an HMAC."""
    noun = {"samples": "sample", "subject": "subject", "class": "class"}[request.kind]
    texts = [f"{noun}:{value}".encode() for value in request.values]
    return sorted(hmac.new(journal.salt().encode(), text, hashlib.sha256).hexdigest() for text in texts)


@only_sqlite
def test_a_pointer_into_another_or_altered_journal_is_refused(three, tmp_path, index):
    pointer = three.pointer()
    other = Journal(tmp_path / "other")
    with pytest.raises(SpecMismatch, match="holds 0 requests, and the first 3 were asked for: restore the journal"):
        other.read_prefix(pointer)
    other.file([sample("s1"), sample("s2"), sample("s3")], index)
    with pytest.raises(SpecMismatch, match="first 3 requests of .* aren't those the pointer names.*backup"):
        other.read_prefix(pointer)
    execute(three, """UPDATE requests SET items = '["s4"]' WHERE number = 1""")
    with pytest.raises(SpecMismatch, match="aren't those the pointer names"):
        three.read_prefix(pointer)
    for count in (4, -1):
        with pytest.raises(SpecMismatch, match="holds 3 requests"):
            three.requests(count)


def test_pointers_on_disk(three, tmp_path):
    path = tmp_path / "requests.json"
    write_pointer(path, three.pointer())
    assert read_pointer(path) == three.pointer()
    assert json.loads(path.read_text()).keys() == {"count", "sha256"}
    for text in (
        "",
        "[]",
        '{"count": 1}',
        '{"count": true, "sha256": "%s"}' % ("0" * 64),
        '{"count": 1, "sha256": "x"}',
    ):
        path.write_text(text)
        with pytest.raises(DamagedStore, match=r"requests\.json .*restore it from git"):
            read_pointer(path)
    with pytest.raises(DamagedStore, match="can't be read as a pointer"):
        read_pointer(tmp_path / "none.json")


# Several processes


def start_filing(kind, folder, index, name, address=None):
    """A process of its own, ready to file; it starts when `start` is called on it."""
    table = folder.parent / "index.parquet"
    index.to_parquet(table)
    command = [sys.executable, Path(__file__).with_name("filing_process.py"), kind, folder, table, name]
    command += [address] if address else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def start(process):
    process.stdin.write("go\n")
    process.stdin.flush()


@on_both
def test_concurrent_filers_lose_and_mix_nothing(tmp_path, make_index, address):
    index, folder = make_index(n_train=30), tmp_path / "journal"
    workers = [start_filing("many", folder, index, f"w{w}", address) for w in range(4)]
    for worker in workers:
        start(worker)
    seen = []
    while any(worker.poll() is None for worker in workers):
        seen.append(Journal(folder, address).pointer())
        time.sleep(0.01)
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    requests = Journal(folder, address).requests()
    assert len(requests) == 4 * 15 + 15
    assert {r.request_id for r in requests} >= {f"w{w}-{k}" for w in range(4) for k in range(15)}
    assert sorted(r.values for r in requests if r.request_id.startswith("r-")) == sorted(
        tuple(sorted((f"s{k}", f"s{k + 1}"))) for k in range(15)
    )
    for pointer in seen:
        assert len(Journal(folder, address).read_prefix(pointer)) == pointer.count


@on_both
def test_what_was_acknowledged_survives_a_kill_and_the_lock_is_freed(tmp_path, index, address):
    folder, acknowledged = tmp_path / "journal", []
    for k in range(4):
        victim = start_filing("endless", folder, index, f"v{k}", address)
        start(victim)
        acknowledged.append(victim.stdout.readline().strip())
        time.sleep(0.013 * k)
        victim.kill()
        acknowledged += victim.communicate()[0].split()
        assert victim.returncode == -signal.SIGKILL
    Journal(folder, address).file([sample("s9", name="after")], index)
    held = [r.request_id for r in Journal(folder, address).requests()]
    assert acknowledged
    assert set(acknowledged) <= set(held)
    assert len(held) <= len(acknowledged) + 4 + 1
