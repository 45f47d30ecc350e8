"""Erased ids are noted for good, unreadably, and whatever is prepared later doesn't hold them."""

import hashlib
import hmac
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from amnesiac.data import LeftOut, Samples, leave_out, open_dataset, prepare_dataset
from amnesiac.durable_lines import DurableLines
from amnesiac.erasure import Tombstones, pseudonym
from amnesiac.errors import DamagedStore, DataError, StoreError
from amnesiac.settings import DataSettings


def made(labels, subjects=None, test=None, classes=3):
    n = len(labels)
    images = np.random.default_rng(0).integers(0, 255, (n, 1, 4, 4), dtype=np.uint8)
    ids = tuple(f"s{k:03}" for k in range(n))
    flags = None if test is None else np.array(test, bool)
    names = tuple("abcdef"[:classes])
    return Samples(images, np.array(labels, np.int64), ids, tuple(subjects or ids), names, "made", flags)


def test_adding_is_counted_idempotent_and_seen_by_others(tmp_path):
    stones = Tombstones(tmp_path / "journal")
    assert len(stones) == 0
    assert not stones.mask(["s1"], ["p1"]).any()
    assert not stones.path.exists(), "reading makes nothing"
    assert stones.add("sample", []) == 0
    assert stones.add("sample", ["s1", "s2", "s1"]) == 2
    content = stones.path.read_bytes()
    assert stones.add("sample", ["s2", "s1"]) == 0
    assert stones.path.read_bytes() == content
    assert stones.add("subject", ["s1"]) == 1, "an id of a sample and of a subject are two things"
    again = Tombstones(tmp_path / "journal")
    assert len(again) == 3
    mask = again.mask(["s1", "s2", "s3", "s4"], ["p", "p", "s1", "s2"])
    assert mask.dtype == np.bool_
    assert mask.tolist() == [True, True, True, False]


def test_a_subject_that_vanished_is_known_and_may_come_back_with_other_samples(tmp_path):
    stones = Tombstones(tmp_path / "journal")
    assert not stones.contains()("vanished", "p1"), "no file yet"
    assert stones.add("vanished", ["p1"]) == 1
    known = stones.contains()
    assert [known("vanished", "p1"), known("vanished", "p2"), known("subject", "p1")] == [True, False, False]
    assert not stones.mask(["s9"], ["p1"]).any()


def test_nobody_else_can_read_them_and_they_hold_no_id_and_no_plain_hash(tmp_path):
    stones = Tombstones(tmp_path / "journal")
    stones.add("subject", ["writer-0042"])
    assert stones.path.stat().st_mode & 0o777 == 0o600
    assert stones.path.parent.stat().st_mode & 0o777 == 0o700
    salt_line, line = stones.path.read_text().splitlines()
    salt = bytes.fromhex(salt_line.removeprefix("salt "))
    expected = hmac.new(salt, b"subject\0writer-0042", hashlib.sha256).hexdigest()
    assert line == f"subject {expected}"
    assert pseudonym(salt, "subject", "writer-0042") == expected
    other = Tombstones(tmp_path / "other")
    other.add("subject", ["writer-0042"])
    assert other.path.read_text().splitlines()[1] != line, "another salt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("salt", "salz"), "line 1 must be the salt"),
        (lambda text: text.partition("\n")[2], "line 1 must be the salt"),
        (lambda text: text.replace("sample", "simple"), "line 2 isn't"),
        (lambda text: text[:-3] + "x\n", "line 3 isn't"),
    ],
)
def test_damage_is_refused_where_it_is(change, message, tmp_path):
    stones = Tombstones(tmp_path)
    stones.add("sample", ["s1"])
    stones.add("subject", ["p1"])
    stones.path.write_text(change(stones.path.read_text()))
    for act in (lambda: stones.mask(["s1"], ["p"]), lambda: stones.add("sample", ["s2"]), lambda: len(stones)):
        with pytest.raises(DamagedStore, match=rf"{message}.*restore the file from a backup"):
            act()


def test_a_torn_last_line_never_counted_and_goes_with_the_next(tmp_path):
    stones = Tombstones(tmp_path)
    stones.add("sample", ["s1", "s2"])
    whole = stones.path.read_bytes()
    stones.path.write_bytes(whole[:-20])
    assert stones.mask(["s1", "s2"], ["p", "p"]).tolist() == [True, False]
    assert stones.add("sample", ["s2"]) == 1
    assert stones.path.read_bytes() == whole


def test_a_link_or_a_file_open_to_others_is_refused(tmp_path):
    stones = Tombstones(tmp_path)
    stones.add("sample", ["s1"])
    stones.path.chmod(0o640)
    with pytest.raises(StoreError, match=r"mode 0640, so others may open it: run `chmod 600"):
        stones.mask(["s1"], ["s1"])
    stones.path.rename(tmp_path / "elsewhere")
    stones.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not a link"):
        stones.add("sample", ["s2"])


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    lines = DurableLines(tmp_path / "lines")
    lines.extend(lambda _: [b"one"])

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left on device.*nothing was added"):
        lines.extend(lambda _: [b"two"])
    monkeypatch.undo()
    assert lines.read() == [b"one"]


KILLED = """
import os, signal, sys
from pathlib import Path
from amnesiac.erasure import Tombstones

left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event == "open" and str(arguments[0]).endswith("tombstones.txt") or event in ("os.mkdir", "os.truncate"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
Tombstones(Path(sys.argv[1])).add("sample", ["s1", "s2"])
"""


def test_a_kill_at_any_change_leaves_a_file_that_can_be_added_to(tmp_path):
    for k in range(10):
        folder = tmp_path / str(k) / "journal"
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(k)], check=False)
        assert Tombstones(folder).add("sample", ["s1", "s2"]) == (0 if done.returncode == 0 else 2)
        assert len(Tombstones(folder)) == 2
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert k >= 2, "nothing was killed"


def test_two_processes_add_at_the_same_time_and_nothing_is_lost(tmp_path):
    program = (
        "import sys; from pathlib import Path; from amnesiac.erasure import Tombstones\n"
        "for k in range(20): Tombstones(Path(sys.argv[1])).add('sample', [f's{k}', sys.argv[2] + str(k)])"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    assert len(Tombstones(tmp_path)) == 60


def test_a_later_prepare_does_not_hold_the_erased(tmp_path):
    samples = made([0, 1, 2] * 10, subjects=[f"p{k // 3}" for k in range(30)])
    stones = Tombstones(tmp_path / "journal")
    stones.add("subject", ["p4"])
    stones.add("sample", ["s000", "s029"])
    kept, left_out = leave_out(samples, stones.mask(samples.sample_ids, samples.subject_ids))
    assert left_out == LeftOut(5)
    settings = DataSettings(test_fraction=0.2, validation_fraction=0.2)
    prepare_dataset(kept, settings, 0, tmp_path / "data")
    index = open_dataset(tmp_path / "data").index
    erased = {"s000", "s029", "s012", "s013", "s014"}
    assert set(index["sample_id"]) == set(samples.sample_ids) - erased
    for name in (*sorted(erased), "p4"):
        assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file() and name.encode() in p.read_bytes()]
    row = samples.sample_ids.index("s005")
    at = kept.sample_ids.index("s005")
    assert np.array_equal(kept.images[at], samples.images[row])
    assert (kept.labels[at], kept.subject_ids[at]) == (samples.labels[row], "p1")


def test_nothing_erased_is_nothing_changed():
    samples = made([0, 1, 2])
    assert leave_out(samples, np.zeros(3, bool)) == (samples, LeftOut(0))


def test_a_class_that_vanishes_goes_as_a_whole_with_a_clear_message(tmp_path, caplog):
    samples = made([0, 1, 2, 1, 0, 2, 1, 1], test=[0, 0, 0, 0, 0, 0, 1, 1])
    kept, left_out = leave_out(samples, np.array([0, 1, 0, 1, 0, 0, 1, 0], bool))
    assert left_out == LeftOut(3, ("b",), 1)
    assert "every training sample of class 'b' is erased" in caplog.text
    assert "1 other samples" in caplog.text
    assert kept.class_names == ("a", "c")
    assert kept.sample_ids == ("s000", "s002", "s004", "s005")
    assert kept.labels.tolist() == [0, 1, 0, 1]
    assert kept.test.tolist() == [False] * 4
    train_only = replace(kept, test=None)
    settings = DataSettings(test_fraction=0.0, validation_fraction=0.0)
    summary = prepare_dataset(train_only, settings, 0, tmp_path / "data")
    assert summary.class_names == ("a", "c")


def test_when_everybody_is_erased_there_is_nothing_to_prepare():
    samples = made([0, 1, 2, 0], test=[0, 0, 0, 1])
    with pytest.raises(DataError, match="every training sample is erased .*nothing to train on"):
        leave_out(samples, np.array([1, 1, 1, 0], bool))
