"""Files and folders appear whole or not at all; what a killed process left is mended. Crashes are simulated."""

import json
import os

import pytest

from amnesiac import durable
from amnesiac.durable import sweep, whole_folder, write_bytes, write_json


class Crash(BaseException):
    """Stands for SIGKILL: no clean-up of the code under test may be relied upon after it."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def made(folder, text):
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)
    return folder


def test_write_bytes_makes_the_folder_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_failing_write_keeps_the_old_file_whole(call, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_):
        raise OSError("no space left")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        (tmp_path / f".file.{os.getpid()}.partial").mkdir()
    with pytest.raises(OSError):
        write_bytes(path, b"new" * 1000)
    assert path.read_bytes() == b"old"


def test_data_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    """At the moment of the (first) fsync, the new content lies aside and the old file is still in place."""
    path, seen = tmp_path / "file", []
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((path.read_bytes(), names(tmp_path))))
    write_bytes(path, b"new")
    assert seen[0] == (b"old", [f".file.{os.getpid()}.partial", "file"])
    assert seen[1] == (b"new", ["file"])


def test_write_json(tmp_path):
    write_json(tmp_path / "x.json", {"b": [1], "a": "é"})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": "é", "b": [1]}
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"')


def test_whole_folder_replaces_on_success(tmp_path):
    destination = tmp_path / "x" / "store"
    for text in ("one", "two"):
        with whole_folder(destination) as aside:
            assert aside.parent == destination.parent
            assert not list(aside.iterdir())
            made(aside / "sub", text)
    assert (destination / "sub" / "file").read_text() == "two"
    assert names(tmp_path / "x") == ["store"]


def test_whole_folder_leaves_the_old_one_on_error(tmp_path):
    made(tmp_path / "store", "old")
    with pytest.raises(Crash), whole_folder(tmp_path / "store") as aside:
        (aside / "half").write_text("half")
        raise Crash
    assert names(tmp_path) == ["store"]
    assert (tmp_path / "store" / "file").read_text() == "old"


def test_files_and_folders_are_synced_before_the_renames(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "_sync", lambda path: synced.append((path.name, (tmp_path / "store").exists())))
    with whole_folder(tmp_path / "store") as aside:
        made(aside / "sub", "text")
    assert {name for name, _ in synced} == {f".store.{os.getpid()}.partial", "sub", "file", tmp_path.name}
    assert synced[-1] == (tmp_path.name, True)
    assert not any(there for _, there in synced[:-1])


def killed_between_the_renames(destination, monkeypatch):
    """The old content has been moved away, the new one is not yet in place, and nobody cleans up."""
    real = type(destination).rename

    def rename(self, target):
        if self.name.endswith(".partial"):
            raise Crash
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(destination), "rename", rename)
        patch.setattr(durable.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Crash), whole_folder(destination) as aside:
            (aside / "file").write_text("new")


def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    destination = made(tmp_path / "store", "old")
    killed_between_the_renames(destination, monkeypatch)
    assert names(tmp_path) == [f".store.{os.getpid()}.old", f".store.{os.getpid()}.partial"]
    with pytest.raises(Crash), whole_folder(destination):
        assert (destination / "file").read_text() == "old"  # it came back at once
        raise Crash
    assert names(tmp_path) == ["store"]
    assert (destination / "file").read_text() == "old"


def test_leftovers_of_another_process_go(tmp_path):
    made(tmp_path / "store", "current")
    made(tmp_path / ".store.1.old", "older")
    made(tmp_path / ".store.2.partial", "half")
    with whole_folder(tmp_path / "store") as aside:
        (aside / "file").write_text("new")
    assert names(tmp_path) == ["store"]
    assert (tmp_path / "store" / "file").read_text() == "new"


def test_leftovers_of_other_destinations_stay(tmp_path):
    """`.store.v2.1.old` is the only copy of `store.v2`, not an old `store`."""
    strangers = [".store.v2.1.old", ".store.v2.1.partial", ".storey.1.old", ".store.x.old"]
    for name in strangers:
        made(tmp_path / name, "another's")
    (tmp_path / ".store.3.partial").write_text("a file, not a folder")
    with whole_folder(tmp_path / "store") as aside:
        assert not (tmp_path / "store").exists()
        (aside / "file").write_text("new")
    assert names(tmp_path) == sorted([*strangers, ".store.3.partial", "store"])


@pytest.mark.parametrize("name", ["run[1]", "a*b", "x?"])
def test_names_with_glob_characters(name, tmp_path):
    made(tmp_path / f".{name}.1.old", "old")
    with pytest.raises(Crash), whole_folder(tmp_path / name):
        raise Crash
    assert (tmp_path / name / "file").read_text() == "old"


def test_a_sweep_brings_contents_back_and_removes_what_was_half_written(tmp_path):
    (tmp_path / ".file.71.partial").write_text("half")
    made(tmp_path / ".moved.72.partial", "new")
    made(tmp_path / ".moved.72.old", "old")
    made(tmp_path / ".kept.73.old", "old")
    made(tmp_path / "kept", "now")
    made(tmp_path / ".a.b.7.partial", "half")
    for name in (".writer.lock", ".file.x.partial", "file.71.partial", ".file.71.partial.txt"):
        (tmp_path / name).touch()
    assert sweep(tmp_path) == ["a.b", "file", "kept", "moved"]
    assert names(tmp_path) == [
        ".file.71.partial.txt",
        ".file.x.partial",
        ".writer.lock",
        "file.71.partial",
        "kept",
        "moved",
    ]
    assert [(tmp_path / name / "file").read_text() for name in ("kept", "moved")] == ["now", "old"]
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "nowhere") == []
