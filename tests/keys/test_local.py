"""A key store keeps its keys, for its owner alone, and what it has destroyed is gone whatever interrupts it."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amnesiac.errors import DamagedStore, KeyDestroyed, KeyStoreMissing, SpecMismatch, StoreError
from amnesiac.keys import Destruction, LocalKeyStore, check_store, sample_name, step_name

NAMES = [f"name-{k}" for k in range(8)]
GONE, KEPT = np.array([1, 4, 5]), np.array([0, 2, 3, 6, 7])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "keys"


@pytest.fixture
def store(folder):
    made = LocalKeyStore(folder, create=True)
    assert made.ensure(NAMES).tolist() == list(range(8))
    return made


def names_of(folder):
    return sorted(path.name for path in folder.iterdir())


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_numbers_and_keys_stay(store, folder):
    keys = store.keys(np.arange(8))
    assert keys.shape == (8, 32)
    assert len({key.tobytes() for key in keys}) == 8
    again = LocalKeyStore(folder)
    assert again.ensure(["name-3", "new", "name-0", "new", "other"]).tolist() == [3, 8, 0, 8, 9]
    assert np.array_equal(LocalKeyStore(folder).keys(np.arange(8)), keys)
    assert again.find(["other", "nobody"]).tolist() == [9, -1]
    assert (len(again), again.store_id) == (10, store.store_id)
    assert again.keys(np.array([], np.int64)).shape == (0, 32)


def test_two_stores_share_nothing(store, tmp_path):
    other = LocalKeyStore(tmp_path / "other", create=True)
    other.ensure(NAMES)
    assert other.store_id != store.store_id
    assert not (other.keys(np.arange(8)) == store.keys(np.arange(8))).all(1).any()


def test_what_another_process_has_changed_is_seen(store, folder):
    other = LocalKeyStore(folder)
    assert other.alive(GONE).all()
    store.destroy(GONE)
    assert not other.alive(GONE).any()
    assert other.find([NAMES[1]]).tolist() == [-1]
    assert other.ensure(["later"]).tolist() == [8]
    assert store.find(["later"]).tolist() == [8]


def test_destroyed_keys_are_gone_and_others_are_not(store, folder):
    before = store.keys(np.arange(8))
    assert store.destroy(np.array([4, 1, 5, 4])) == Destruction(3, 0, store.epoch)
    for opened in (store, LocalKeyStore(folder)):
        assert opened.alive(np.arange(8)).tolist() == [k not in GONE for k in range(8)]
        assert np.array_equal(opened.keys(KEPT), before[KEPT])
        with pytest.raises(KeyDestroyed, match=r"2 of 3 keys asked for were destroyed in .*Leave these samples out"):
            opened.keys(np.array([1, 2, 5]))
    assert not any(key.tobytes() in everything(folder) for key in before)
    with pytest.raises(DamagedStore, match="has the keys 0 to 7, not 3 to 8"):
        store.destroy(np.array([3, 8]))


def test_destroying_again_changes_nothing(store, folder):
    store.destroy(GONE)
    before, epoch = everything(folder), store.epoch
    assert store.destroy(GONE) == LocalKeyStore(folder).destroy(GONE) == Destruction(0, 3, epoch)
    assert store.destroy(np.array([], np.int64)) == Destruction(0, 0, epoch)
    assert everything(folder) == before
    assert store.destroy(np.array([1, 2])) == Destruction(1, 1, epoch + 1)


def test_whoever_comes_again_gets_a_new_key(store):
    old = store.keys(GONE)
    store.destroy(GONE)
    assert store.find([NAMES[4]]).tolist() == [-1]
    [number] = store.ensure([NAMES[4]])
    assert number == 8
    assert store.keys(np.array([8])).tobytes() not in {key.tobytes() for key in old}
    assert not store.alive(GONE).any()


def test_the_old_epochs_files_are_overwritten_before_they_are_removed(store, folder, tmp_path):
    """Another link to a file shows what happens to its content."""
    old = {path.name: path.read_bytes() for path in folder.glob("epoch-*")}
    assert len(old) == 2
    for name in old:
        os.link(folder / name, tmp_path / name)
    store.destroy(GONE)
    for name, content in old.items():
        assert not (folder / name).exists()
        left = (tmp_path / name).read_bytes()
        assert len(left) == len(content)
        assert left[:16] != content[:16]
        assert left[-16:] != content[-16:]
    assert names_of(folder) == ["epoch-2.key", "epoch-2.table", "lock", "store.json"]


def test_names_are_not_written_down(store, folder):
    for name in NAMES:
        assert name.encode() not in everything(folder)
    assert sample_name("p") != step_name("p", 0)


def test_only_the_owner_may_look(store, folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    (folder / "epoch-1.key").chmod(0o640)
    with pytest.raises(StoreError, match=r"epoch-1\.key: others than its owner may open it.*chmod 600"):
        LocalKeyStore(folder).keys(GONE)
    (folder / "epoch-1.key").chmod(0o600)
    folder.chmod(0o750)
    for call in (store.keys, LocalKeyStore(folder).destroy):
        with pytest.raises(StoreError, match=r"keys: others than its owner may open it.*chmod 700"):
            call(GONE)


def test_symbolic_links_are_not_followed(store, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StoreError, match="can't be used"):
        LocalKeyStore(tmp_path / "link").keys(GONE)
    shutil.move(folder / "epoch-1.key", tmp_path / "elsewhere")
    (folder / "epoch-1.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"can't be used: .*epoch-1\.key"):
        LocalKeyStore(folder).keys(GONE)


def test_a_store_that_is_not_there(tmp_path):
    missing = LocalKeyStore(tmp_path / "nowhere")
    for call in (lambda: missing.store_id, lambda: missing.ensure(["a"]), lambda: missing.destroy(GONE)):
        with pytest.raises(KeyStoreMissing, match=r"no key store at .*nowhere .*set AMNESIAC_KEYS to the folder"):
            call()
    assert not (tmp_path / "nowhere").exists()


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file/keys can't be used: .*mend the permissions"):
        LocalKeyStore(tmp_path / "file" / "keys", create=True).ensure(["a"])


def test_another_store_and_none():
    with pytest.raises(KeyStoreMissing, match="data is encrypted with the keys of store abc, and no key store was"):
        check_store("data", "abc", None)
    assert check_store("data", None, None) is None


def test_a_foreign_store_is_named(store, folder):
    assert check_store("data", store.store_id, store) is store
    assert check_store("data", None, store) is None, "data in clear need none"
    with pytest.raises(SpecMismatch, match=f"keys of store abc, but store {store.store_id} was given"):
        check_store("data", "abc", store)


def test_a_lost_pointer_does_not_make_a_new_store(store, folder):
    (folder / "store.json").unlink()
    kept = everything(folder)
    with pytest.raises(DamagedStore, match=r"holds epoch-1\.key, but no store\.json: restore it"):
        LocalKeyStore(folder, create=True).ensure(["a"])
    assert everything(folder) == kept


@pytest.mark.parametrize("name", ["epoch-1.key", "epoch-1.table", "store.json"])
def test_an_altered_file_is_refused(name, store, folder):
    content = (folder / name).read_bytes()
    for place in {0, 7, len(content) // 2, len(content) - 3}:
        altered = bytearray(content)
        altered[place] ^= 4
        (folder / name).write_bytes(altered)
        with pytest.raises((DamagedStore, KeyStoreMissing)):
            LocalKeyStore(folder).keys(KEPT)
    for shorter in (b"", content[: len(content) // 2]):
        (folder / name).write_bytes(shorter)
        with pytest.raises(DamagedStore, match="key store can't be read.*Restore it from its backup"):
            LocalKeyStore(folder).keys(KEPT)
    (folder / name).write_bytes(content)
    assert LocalKeyStore(folder).alive(KEPT).all()


def test_files_of_another_store_or_epoch_are_refused(store, folder, tmp_path):
    other = LocalKeyStore(tmp_path / "other", create=True)
    other.ensure(NAMES)
    kept = shutil.copytree(folder, tmp_path / "kept")
    for name in ("epoch-1.key", "epoch-1.table"):
        shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(DamagedStore, match="it was altered, or belongs to another store or epoch"):
        LocalKeyStore(folder).keys(KEPT)
    store = LocalKeyStore(kept)
    old = {name: (kept / name).read_bytes() for name in ("epoch-1.key", "epoch-1.table")}
    store.destroy(GONE)
    for name, content in old.items():
        (kept / name.replace("1", "2")).write_bytes(content)
    with pytest.raises(DamagedStore, match="belongs to another store or epoch"):
        LocalKeyStore(kept).alive(GONE)


def test_an_older_copy_of_the_store_is_recognised_by_its_missing_keys(store, folder, tmp_path):
    backup = shutil.copytree(folder, tmp_path / "backup")
    store.ensure(["new"])
    with pytest.raises(DamagedStore, match="has the keys 0 to 7, not 0 to 8: it is an older copy.*newest backup"):
        LocalKeyStore(backup).alive(np.array([0, 8]))


def test_a_full_disk_is_one_clear_error_and_loses_nothing(folder):
    """In a process of its own: the limit holds for every file that it writes."""
    store = LocalKeyStore(folder, create=True)
    store.ensure(NAMES)
    before = store.keys(np.arange(8))
    program = (
        "import resource, sys\nfrom amnesiac.errors import StoreError\nfrom amnesiac.keys import LocalKeyStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "try: LocalKeyStore(sys.argv[1]).ensure([str(k) for k in range(2000)])\n"
        "except StoreError as error: sys.exit(f'refused: {error}')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert "refused: the key store" in ended.stderr, ended.stderr
    assert "Free disk space" in ended.stderr
    assert np.array_equal(LocalKeyStore(folder).keys(np.arange(8)), before)
    assert len(names_of(folder)) == 4


ENSURE = """
import sys
from amnesiac.keys import LocalKeyStore
store = LocalKeyStore(sys.argv[1], create=True)
for k in range(12):
    store.ensure([f"n{k}", f"own-{sys.argv[2]}-{k}"])
"""


def test_processes_that_make_keys_at_the_same_time_lose_none(folder):
    commands = [[sys.executable, "-c", ENSURE, str(folder), str(k)] for k in range(3)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    ended = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    store = LocalKeyStore(folder)
    names = [f"n{k}" for k in range(12)] + [f"own-{p}-{k}" for p in range(3) for k in range(12)]
    assert sorted(store.find(names).tolist()) == list(range(48))
    assert len({key.tobytes() for key in store.keys(np.arange(48))}) == 48


def killed(operation, copies, *folders):
    """Copies of stores, each killed at another change; by name of the store."""
    script = Path(__file__).with_name("killed_store.py")
    command = [sys.executable, str(script), operation, str(copies), *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return {folder.name: sorted((copies / folder.name).iterdir()) for folder in folders}


def check_before_or_after(folder, before, epoch_key):
    """All of the keys are there, or none of those to destroy; the others always. Returns whether they are destroyed."""
    store = LocalKeyStore(folder)
    alive = store.alive(GONE)
    assert alive.all() or not alive.any()
    assert np.array_equal(store.keys(KEPT), before[KEPT])
    assert names_of(folder) == [f"epoch-{store.epoch}.key", f"epoch-{store.epoch}.table", "lock", "store.json"]
    if alive.all():
        assert np.array_equal(store.keys(GONE), before[GONE])
        return False
    assert epoch_key not in everything(folder)
    return True


def test_a_destruction_killed_anywhere_happens_or_does_not(store, folder, tmp_path):
    before, epoch_key = store.keys(np.arange(8)), (folder / "epoch-1.key").read_bytes()
    copies = killed("destroy", tmp_path / "copies", folder)["keys"]
    assert len(copies) > 20
    unfinished = sum(len(names_of(copy)) > 4 for copy in copies)
    assert unfinished > 8, "or nothing had to be cleaned up"
    found = [check_before_or_after(copy, before, epoch_key) for copy in copies]
    assert found == sorted(found), "once destroyed, destroyed at every later point"
    assert {False, True} == set(found)
    assert found[-1], "the last one ran to its end"
    for copy in copies:
        store = LocalKeyStore(copy)
        done = store.destroy(GONE)
        assert done.destroyed + done.already == 3
        assert check_before_or_after(copy, before, epoch_key)


def test_a_recovery_killed_anywhere_is_finished_by_the_next(store, folder, tmp_path):
    before, epoch_key = store.keys(np.arange(8)), (folder / "epoch-1.key").read_bytes()
    copies = [copy for copy in killed("destroy", tmp_path / "copies", folder)["keys"] if len(names_of(copy)) > 4][::2]
    again = killed("open", tmp_path / "again", *copies)
    assert sum(map(len, again.values())) > 25
    for copy in copies:
        destroyed = json.loads((copy / "store.json").read_text())["epoch"] == 2
        assert {check_before_or_after(one, before, epoch_key) for one in again[copy.name]} == {destroyed}


def test_new_keys_killed_anywhere_are_made_or_not(store, folder, tmp_path):
    before = store.keys(np.arange(8))
    for copy in killed("ensure", tmp_path / "copies", folder)["keys"]:
        opened = LocalKeyStore(copy)
        assert np.array_equal(opened.keys(np.arange(8)), before)
        assert len(opened) in (8, 10)
        assert opened.ensure(["x", "name-2", "y"]).tolist() == [8, 2, 9]
    assert np.array_equal(LocalKeyStore(copy).keys(np.arange(8)), before)


def test_a_store_killed_while_it_is_made_can_be_made_again(store, folder, tmp_path):
    for copy in killed("create", tmp_path / "copies", folder)["keys"]:
        made = LocalKeyStore(copy / "new", create=True)
        assert made.ensure(["a", "b"]).tolist() == [0, 1]
        assert len(names_of(copy / "new")) == 4


def test_a_reader_goes_on_while_another_process_is_at_work(store, folder):
    """Its half-written files are no leftovers as long as it holds the lock."""
    from amnesiac.keys.folder import locked, opened

    (folder / "epoch-2.key.partial").write_bytes(b"at work")
    with opened(folder) as descriptor, locked(descriptor, wait=False) as mine:
        assert mine
        assert LocalKeyStore(folder).alive(KEPT).all()
        assert (folder / "epoch-2.key.partial").exists()
    assert LocalKeyStore(folder).alive(KEPT).all()
    assert not (folder / "epoch-2.key.partial").exists()
