import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amnesiac.errors import DamagedStore, RequestError, SpecMismatch, StoreError, UnknownSample
from amnesiac.requests import Journal, Pointer, RequestDraft, draw_random, read_pointer, resolve, write_pointer


def sample(*ids, name=None):
    return RequestDraft("samples", ids, name)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal")


@pytest.fixture
def three(journal, index):
    """A journal of three requests."""
    journal.file([sample("s1"), RequestDraft("subject", ("p2",), "t-2"), RequestDraft("class", ("two",))], index)
    return journal


def test_filed_requests_come_back_in_order(three):
    requests = three.requests()
    assert [(r.kind, r.values) for r in requests] == [("samples", ("s1",)), ("subject", ("p2",)), ("class", ("two",))]
    assert requests[1].request_id == "t-2"
    assert requests == Journal(three.path.parent).requests()
    assert three.requests(2) == requests[:2]
    assert three.requests(0) == ()


def test_a_missing_journal_is_empty(journal):
    assert journal.requests() == ()
    assert journal.pointer() == Pointer(0, hashlib.sha256(b"").hexdigest())
    assert journal.read_prefix(journal.pointer()) == ()
    assert not journal.path.parent.exists()


def test_filing_nothing_creates_nothing(journal, index):
    assert journal.file([], index).filed == ()
    assert not journal.path.parent.exists()


def test_the_journal_is_private(three):
    assert three.path.stat().st_mode & 0o777 == 0o600
    assert three.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_same_request_twice_is_one_request(three, index):
    before = three.path.read_bytes()
    again = three.file([sample("s1", "s1"), RequestDraft("subject", ("p2",), "t-2")], index)
    assert again.filed == ()
    assert again.already == three.requests(2)
    assert three.path.read_bytes() == before


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
    before = three.path.read_bytes()
    with pytest.raises(RequestError, match="request_id 't-2' is already used for another request .*nothing was filed"):
        three.file([sample("s7"), sample("s2", name="t-2")], index)
    with pytest.raises(RequestError, match="'new' is already used"):
        three.file([sample("s7", name="new"), sample("s8", name="new")], index)
    assert three.path.read_bytes() == before


def test_unknown_ids_are_refused_and_nothing_filed(three, index):
    before = three.path.read_bytes()
    with pytest.raises(UnknownSample, match=r"sample 's99', subject 'nobody' \(2 unknown in all\)"):
        three.file([sample("s7"), sample("s99"), RequestDraft("subject", ("nobody",))], index)
    assert three.path.read_bytes() == before


def test_requests_that_would_leave_nothing_are_refused_before_they_are_journalled(three, index):
    before = three.path.read_bytes()
    three.file([RequestDraft("class", ("0",))], index)
    with pytest.raises(RequestError, match="name all 12 samples of the train split"):
        three.file([RequestDraft("class", ("1",))], index)
    assert len(three.requests()) == 4
    assert three.path.read_bytes().startswith(before)


def test_ids_of_two_journals_differ(tmp_path, index):
    ids = [Journal(tmp_path / name).file([sample("s1")], index).filed[0].request_id for name in ("a", "b")]
    assert ids[0] != ids[1]
    assert all(len(name) == 34 and name.startswith("r-") for name in ids)


# Torn and damaged lines


def test_a_torn_last_line_was_never_filed(three, index, caplog):
    whole = three.path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        three.path.write_bytes(whole[:cut])
        assert len(three.requests()) == 2
        assert three.pointer() == Pointer(2, hashlib.sha256(whole[:start]).hexdigest())
    with caplog.at_level(logging.WARNING, "amnesiac"):
        filed = three.file([RequestDraft("class", ("two",)), sample("s9")], index).filed
    assert three.path.read_bytes().startswith(whole[:start])
    assert three.requests()[2:] == filed
    assert f"dropped {len(whole) - 1 - start} bytes of a request that was never acknowledged" in caplog.text
    assert "two" not in caplog.text


def test_a_torn_first_line_leaves_an_empty_journal(three, index):
    first = three.path.read_bytes().split(b"\n")[0]
    three.path.write_bytes(first)
    assert three.requests() == ()
    three.file([sample("s4")], index)
    assert [r.values for r in three.requests()] == [("s4",)]


def change(line, **fields):
    return json.dumps({**json.loads(line), **fields}).encode()


@pytest.mark.parametrize(
    ("number", "damage", "reason"),
    [
        (2, lambda line: line[:-5], "delimiter|Expecting|Unterminated"),
        (2, lambda line: b"", "Expecting value"),
        (2, lambda line: b"\0" * len(line), "Expecting value"),
        (2, lambda line: b"\xff" + line, "codec"),
        (2, lambda line: b"[" * 100_000, "recursion"),
        (2, lambda line: b"7", "isn't an object of kind, reason"),
        (2, lambda line: change(line, more=1), "isn't an object of"),
        (3, lambda line: change(line, values="two"), "values isn't a list"),
        (3, lambda line: change(line, request_id=None), "no request_id"),
        (3, lambda line: change(line, request_id="t-2"), "request_id stands in an earlier line"),
        (3, lambda line: change(line, received="yesterday"), "received 'yesterday'"),
        (3, lambda line: change(line, kind="all"), "unknown kind"),
        (1, lambda line: change(line, salt=""), "must hold its salt"),
        (1, lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "salt"}).encode(), "its salt"),
        (1, lambda line: b"[]", "its salt"),
    ],
)
def test_any_other_bad_line_is_damage_and_named(three, index, number, damage, reason):
    lines = three.path.read_bytes().split(b"\n")
    lines[number - 1] = damage(lines[number - 1])
    damaged = b"\n".join(lines)
    three.path.write_bytes(damaged)
    with pytest.raises(DamagedStore, match=rf"(?i)requests\.jsonl:{number} isn't a journalled request \(.*({reason})"):
        three.requests()
    with pytest.raises(DamagedStore, match="restore the journal from a backup"):
        three.file([sample("s9")], index)
    assert three.path.read_bytes() == damaged


def test_a_journal_that_is_a_link_or_no_file_is_refused(three, index, tmp_path):
    elsewhere = three.path.rename(tmp_path / "elsewhere")
    three.path.symlink_to(elsewhere)
    for use in (three.requests, lambda: three.file([sample("s9")], index)):
        with pytest.raises(StoreError, match=r"requests\.jsonl can't be opened .*not a link"):
            use()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be opened"):
        Journal(tmp_path / "file").file([sample("s9")], index)


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_files_nothing(three, index, monkeypatch, failing):
    before, real = three.path.read_bytes(), os.write

    def no_space(descriptor, *data):
        if data:
            real(descriptor, data[0][:20])  # a part still went out
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(StoreError, match=r"can't be written \(No space left on device\): nothing was filed"):
        three.file([sample("s9")], index)
    assert three.path.read_bytes() == before
    monkeypatch.undo()
    assert len(three.file([sample("s9")], index).filed) == 1
    assert len(three.requests()) == 4


def test_short_writes_are_completed(journal, index, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    journal.file([sample("s1"), sample("s2")], index)
    assert [r.values for r in journal.requests()] == [("s1",), ("s2",)]


def test_the_file_and_its_folder_are_synced_before_filing_returns(journal, index, monkeypatch):
    synced, real = [], os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    journal.file([sample("s1")], index)
    assert synced == [journal.path, journal.path.parent, journal.path.parent.parent]
    journal.file([sample("s2")], index)
    assert synced[3:] == [journal.path]


# Pointers


def test_a_pointer_names_a_prefix_for_ever(three, index):
    pointer, requests = three.pointer(), three.requests()
    three.file([sample("s9")], index)
    assert three.pointer() != pointer
    assert three.read_prefix(pointer) == requests
    assert pointer.sha256 == hashlib.sha256(b"".join(three.path.read_bytes().splitlines(True)[:3])).hexdigest()


def test_a_pointer_into_another_or_altered_journal_is_refused(three, tmp_path, index):
    pointer = three.pointer()
    other = Journal(tmp_path / "other")
    with pytest.raises(SpecMismatch, match="holds 0 requests, and the first 3 were asked for: restore the journal"):
        other.read_prefix(pointer)
    other.file([sample("s1"), sample("s2"), sample("s3")], index)
    with pytest.raises(SpecMismatch, match="first 3 lines of .* aren't those the pointer names.*backup"):
        other.read_prefix(pointer)
    three.path.write_bytes(three.path.read_bytes().replace(b'"s1"', b'"s4"'))
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


def start_filing(kind, folder, index, name):
    """A process of its own, ready to file; it starts when `start` is called on it."""
    table = folder.parent / "index.parquet"
    index.to_parquet(table)
    command = [sys.executable, Path(__file__).with_name("filing_process.py"), kind, folder, table, name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def start(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_concurrent_filers_lose_and_mix_nothing(tmp_path, make_index):
    index, folder = make_index(n_train=30), tmp_path / "journal"
    workers = [start_filing("many", folder, index, f"w{w}") for w in range(4)]
    for worker in workers:
        start(worker)
    seen = []
    while any(worker.poll() is None for worker in workers):
        seen.append(Journal(folder).pointer())
        time.sleep(0.01)
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    requests = Journal(folder).requests()
    assert len(requests) == 4 * 15 + 15
    assert {r.request_id for r in requests} >= {f"w{w}-{k}" for w in range(4) for k in range(15)}
    assert sorted(r.values for r in requests if r.request_id.startswith("r-")) == sorted(
        tuple(sorted((f"s{k}", f"s{k + 1}"))) for k in range(15)
    )
    for pointer in seen:
        assert len(Journal(folder).read_prefix(pointer)) == pointer.count


def test_what_was_acknowledged_survives_a_kill_and_the_lock_is_freed(tmp_path, index):
    folder, acknowledged = tmp_path / "journal", []
    for k in range(4):
        victim = start_filing("endless", folder, index, f"v{k}")
        start(victim)
        acknowledged.append(victim.stdout.readline().strip())
        time.sleep(0.013 * k)
        victim.kill()
        acknowledged += victim.communicate()[0].split()
        assert victim.returncode == -signal.SIGKILL
    Journal(folder).file([sample("s9", name="after")], index)
    held = [r.request_id for r in Journal(folder).requests()]
    assert acknowledged
    assert set(acknowledged) <= set(held)
    assert len(held) <= len(acknowledged) + 4 + 1
