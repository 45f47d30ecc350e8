"""What is listed goes and nothing else, with counts that stay right however often the purge is killed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from amnesiac.erasure import Purge, PurgedPlace, Target
from amnesiac.errors import DamagedStore, PurgeRefused, StoreError


@pytest.fixture
def root(tmp_path):
    """Two versions and a scratch file below `root`; a neighbour outside."""
    for name in ("root/old/sub/a", "root/old/b", "root/new/a", "outside/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"plain " + name.encode())
    (tmp_path / "root/scratch").write_bytes(bytes(1000))
    return tmp_path / "root"


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def purge_of(root):
    return Purge(root.parent / "state" / "plan.json", [root])


def targets(root):
    return [Target("versions", root / "old"), Target("scratch", root / "scratch"), Target("scratch", root / "no")]


def test_what_is_listed_goes_and_is_counted_by_place(root):
    purge, size = purge_of(root), len("plain root/old/sub/a") + len("plain root/old/b")
    purge.add(targets(root))
    assert purge.unfinished
    assert (root / "old/b").exists(), "listing removes nothing"
    expected = (PurgedPlace("versions", 2, size, 0, False), PurgedPlace("scratch", 1, 1000, 0, False))
    assert purge.run() == expected
    assert names(root) == ["new", "new/a"]
    assert purge.run() == expected, "again, after a kill: the same counts"
    purge.close()
    assert not purge.unfinished
    assert purge.run() == ()
    purge.close()


def test_what_is_listed_twice_counts_once_and_new_targets_join_an_unfinished_list(root):
    purge = purge_of(root)
    purge.add(targets(root)[:1])
    purge.run()
    purge.add(targets(root), overwrite=True)
    assert [(place.place, place.files) for place in purge.run()] == [("versions", 2), ("scratch", 1)]


def test_the_list_is_not_dropped_while_something_is_there(root):
    purge = purge_of(root)
    purge.add(targets(root))
    with pytest.raises(StoreError, match="2 of the paths .* still there: call run first"):
        purge.close()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("outside/x", "doesn't lie below"),
        ("root", "doesn't lie below"),
        ("root/../outside/x", "without `..`"),
        ("root/link/x", r"reached through the link .*root/link"),
        ("rooted/x", "doesn't lie below"),
    ],
)
def test_nothing_outside_of_the_roots_is_touched(path, message, root):
    (root / "link").symlink_to(root.parent / "outside")
    before = names(root.parent)
    purge = purge_of(root)
    with pytest.raises(PurgeRefused, match=message):
        purge.add([Target("scratch", root / "scratch"), Target("bad", root.parent / path)])
    assert not purge.unfinished
    assert names(root.parent) == before


def test_a_relative_path_is_refused(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(PurgeRefused, match="isn't an absolute path"):
        purge_of(root).add([Target("x", type(root)("old"))])


def test_a_link_goes_and_what_it_points_to_stays(root):
    (root / "old/link").symlink_to(root.parent / "outside")
    (root / "old/broken").symlink_to(root / "nowhere")
    (root / "single").symlink_to(root.parent / "outside/x")
    purge = purge_of(root)
    purge.add([Target("old", root / "old"), Target("single", root / "single")], overwrite=True)
    assert [place.files for place in purge.run()] == [4, 1]
    assert names(root) == ["new", "new/a", "scratch"]
    assert (root.parent / "outside/x").read_bytes() == b"plain outside/x"


def test_a_link_that_came_into_the_path_since_stops_the_run(root):
    (root / "deep").mkdir()
    (root / "deep/x").write_bytes(b"x")
    purge = purge_of(root)
    purge.add([Target("x", root / "deep/x")])
    (root / "deep").rename(root / "moved")
    (root / "deep").symlink_to(root.parent / "outside")
    with pytest.raises(PurgeRefused, match="through the link"):
        purge.run()
    assert (root.parent / "outside/x").exists()


def test_overwriting_writes_zeros_before_the_name_goes_but_spares_other_names(root):
    os.link(root / "old/b", root / "new/same")
    (root / "old/sub/a").chmod(0o400)
    kept = os.open(root / "old/sub/a", os.O_RDONLY)
    try:
        size = os.fstat(kept).st_size
        purge = purge_of(root)
        purge.add([Target("old", root / "old")], overwrite=True)
        assert purge.run() == (PurgedPlace("old", 2, size + len("plain root/old/b"), 1, True),)
        assert os.pread(kept, 100, 0) == bytes(size), "the blocks hold zeros"
    finally:
        os.close(kept)
    assert (root / "new/same").read_bytes() == b"plain root/old/b"


def test_what_can_not_be_removed_is_named_and_the_purge_goes_on_later(root, monkeypatch):
    real = os.unlink

    def refuse(name, **where):
        if name == "a":
            raise PermissionError(13, "Permission denied", name)
        real(name, **where)

    purge = purge_of(root)
    purge.add(targets(root))
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StoreError, match=r"a can't be removed \(Permission denied\): .*run the purge again"):
        purge.run()
    monkeypatch.undo()
    assert [place.files for place in purge.run()] == [2, 1]
    assert names(root) == ["new", "new/a"]


def test_a_damaged_list_is_refused(root):
    purge = purge_of(root)
    purge.add(targets(root))
    purge.plan.write_text(purge.plan.read_text()[:50])
    with pytest.raises(DamagedStore, match=r"plan\.json: the list of an unfinished purge can't be read"):
        purge.run()


KILLED = """
import os, signal, sys
from pathlib import Path
from amnesiac.erasure import Purge, Target

left = int(sys.argv[2])
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}
def hook(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or writes:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
root = Path(sys.argv[1])
purge = Purge(root.parent / "state" / "plan.json", [root])
purge.add([Target("versions", root / "old"), Target("scratch", root / "scratch")], overwrite=True)
print(*purge.run(), sep="\\n")
"""


def test_a_purge_killed_at_every_change_ends_as_if_it_had_not_been(root, tmp_path):
    """Each run is killed one change later; the state is shared, so later runs also recover from earlier kills."""
    import shutil

    pristine = shutil.copytree(root, tmp_path / "pristine")
    whole = None
    for k in range(60):
        if k:
            shutil.rmtree(root)
            shutil.copytree(pristine, root)
            shutil.rmtree(root.parent / "state", ignore_errors=True)
        command = [sys.executable, "-c", KILLED, str(root)]
        first = subprocess.run([*command, str(k)], capture_output=True, text=True, check=False)
        assert (root / "new/a").exists()
        if first.returncode == 0:
            whole = first.stdout
            break
        assert first.returncode == -signal.SIGKILL, first.stderr
        again = subprocess.run([*command, "999"], capture_output=True, text=True, check=True)
        assert names(root) == ["new", "new/a"]
        assert "files=2" in again.stdout
        assert "bytes=1000" in again.stdout
    assert whole == again.stdout
    assert k >= 8
    assert len(json.loads((root.parent / "state/plan.json").read_bytes())["entries"]) == 2


def test_what_a_killed_add_left_goes(tmp_path):
    purge = Purge(tmp_path / "purge.json", [tmp_path])
    left = tmp_path / ".purge.json.4711.partial"
    left.write_text("{")
    purge.add([])
    assert not left.exists()
