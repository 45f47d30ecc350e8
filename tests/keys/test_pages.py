"""A few keys are read without the others; a page that was altered, moved or is another table's is never used."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from amnesiac.errors import DamagedStore, KeyDestroyed
from amnesiac.keys import LocalKeyStore, local, pages
from amnesiac.keys import folder as files

N, PAGE = 22, 4
NAMES = [f"name-{k}" for k in range(N)]
GONE = np.array([1, 4, 5])
KEPT = np.setdiff1d(np.arange(N), GONE)
HEAD, STRIDE = 72, PAGE * 49 + 28


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def store(folder, monkeypatch):
    """Six pages, the last one of two keys."""
    monkeypatch.setattr(pages, "PAGE_KEYS", PAGE)
    made = LocalKeyStore(folder, create=True)
    made.ensure(NAMES)
    return made


def part(content, page):
    """Where a page lies."""
    return slice(HEAD + page * STRIDE, min(HEAD + (page + 1) * STRIDE, len(content)))


def test_the_file_is_what_the_documentation_says(store, folder):
    content, key = (folder / "epoch-1.table").read_bytes(), AESGCM((folder / "epoch-1.key").read_bytes())
    label = f"amnesiac keys 2|{store.store_id}|1".encode()
    assert json.loads((folder / "store.json").read_text())["format"] == 2
    assert len(content) == HEAD + 5 * STRIDE + 2 * 49 + 28
    secret, n, page = struct.unpack("<32sQI", key.decrypt(content[:12], content[12:HEAD], label + b"|head"))
    assert (len(secret), n, page) == (32, N, PAGE)
    for number in range(N):
        own = content[part(content, number // PAGE)]
        clear = key.decrypt(own[:12], own[12:], label + f"|{N}|page {number // PAGE}".encode())
        one = clear[number % PAGE * 49 :][:49]
        assert one[0] == 1
        assert one[17:] == store.keys(np.array([number])).tobytes()
    nonces = {content[:12], *(content[part(content, k)][:12] for k in range(6))}
    assert len(nonces) == 7


def test_only_the_pages_asked_for_are_read(store, folder, monkeypatch):
    spans, read = [], files.read_parts
    monkeypatch.setattr(files, "read_parts", lambda f, name, own: spans.append(own) or read(f, name, own))
    reader = LocalKeyStore(folder)
    assert np.array_equal(reader.keys(np.array([9, 8, 21])), store.keys(np.array([9, 8, 21])))
    assert reader.alive(np.array([10, 20, 0])).all()
    assert len(reader) == N
    two_keys = 2 * 49 + 28
    assert spans == [[(0, HEAD)], [(HEAD + 2 * STRIDE, STRIDE), (HEAD + 5 * STRIDE, two_keys)], [(HEAD, STRIDE)]]
    assert np.array_equal(reader.keys(np.arange(N)), store.keys(np.arange(N)))
    assert reader.find([NAMES[7], "nobody", NAMES[21]]).tolist() == [7, -1, 21]


@pytest.mark.parametrize(("near", "most", "calls"), [(0, 1 << 26, 1), (0, 2 * STRIDE, 3), (-1, 1 << 26, 6)])
def test_pages_are_read_in_calls_of_a_bounded_size(store, folder, monkeypatch, near, most, calls):
    """A call of the system gives 2 GiB at most, which a table may exceed."""
    lengths, pread = [], os.pread
    monkeypatch.setattr(files, "_NEAR", near)
    monkeypatch.setattr(files, "_MOST", most)
    monkeypatch.setattr(os, "pread", lambda f, length, at: lengths.append(length) or pread(f, length, at))
    assert np.array_equal(LocalKeyStore(folder).keys(np.arange(N)), store.keys(np.arange(N)))
    assert len(lengths) == 1 + calls, "the head, then the pages"
    assert max(lengths) <= most


@pytest.mark.parametrize("page", range(6))
def test_an_altered_page_is_refused_and_no_other(store, folder, page):
    path = folder / "epoch-1.table"
    content = path.read_bytes()
    here, others = np.arange(N)[page * PAGE :][:PAGE], np.delete(np.arange(N), np.s_[page * PAGE : (page + 1) * PAGE])
    own = part(content, page)
    for at in (own.start, own.start + 12, own.start + 40, own.stop - 1):
        altered = bytearray(content)
        altered[at] ^= 1
        path.write_bytes(altered)
        reader = LocalKeyStore(folder)
        for _ in range(2):
            with pytest.raises(DamagedStore, match="it was altered, or belongs to another.*Restore it from its backup"):
                reader.keys(here[:1])
        assert np.array_equal(reader.keys(others), store.keys(others))
        for call, argument in ((reader.find, ["a"]), (reader.ensure, ["a"]), (reader.destroy, others)):
            with pytest.raises(DamagedStore, match="key store can't be read"):
                call(argument)
        assert path.read_bytes() == bytes(altered), "a damaged store is left as it is"


def test_swapped_pages_are_refused(store, folder):
    path = folder / "epoch-1.table"
    content = bytearray(path.read_bytes())
    first, second = part(content, 0), part(content, 3)
    content[first], content[second] = content[second], content[first]
    path.write_bytes(content)
    reader = LocalKeyStore(folder)
    for number in (0, 3 * PAGE):
        with pytest.raises(DamagedStore, match="it was altered, or belongs to another store or epoch"):
            reader.keys(np.array([number]))
    assert np.array_equal(reader.keys(np.array([PAGE])), store.keys(np.array([PAGE])))


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"x", lambda c: c[: HEAD + STRIDE]])
def test_a_table_of_another_length_is_refused_when_it_is_opened(store, folder, change):
    path = folder / "epoch-1.table"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedStore, match=f"which {N} keys don't take: it was cut short or added to"):
        LocalKeyStore(folder).keys(np.array([0]))


def test_pages_of_another_epoch_bring_no_destroyed_key_back(store, folder):
    """Not even with the whole old table, as long as the old epoch key is gone; nor do another store's pages fit."""
    old = (folder / "epoch-1.table").read_bytes()
    store.destroy(GONE)
    path = folder / "epoch-2.table"
    content = path.read_bytes()
    for page in (0, 1):
        path.write_bytes(content[: HEAD + page * STRIDE] + old[part(old, page)] + content[HEAD + (page + 1) * STRIDE :])
        with pytest.raises(DamagedStore, match="another store or epoch"):
            LocalKeyStore(folder).alive(np.array([page * PAGE]))
    path.write_bytes(content[:HEAD] + old[HEAD:])
    with pytest.raises(DamagedStore, match="another store or epoch"):
        LocalKeyStore(folder).alive(GONE)
    path.write_bytes(content)
    assert not LocalKeyStore(folder).alive(GONE).any()


def test_pages_of_another_store_are_refused(store, folder, tmp_path):
    other = LocalKeyStore(tmp_path / "other", create=True)
    other.ensure(NAMES)
    theirs, path = (tmp_path / "other" / "epoch-1.table").read_bytes(), folder / "epoch-1.table"
    content = path.read_bytes()
    path.write_bytes(content[:HEAD] + theirs[part(theirs, 0)] + content[HEAD + STRIDE :])
    with pytest.raises(DamagedStore, match="another store or epoch"):
        LocalKeyStore(folder).keys(np.array([0]))


def test_a_reader_that_a_change_overtakes_while_it_reads_gets_the_new_state(store, folder, monkeypatch):
    """Between looking at store.json and reading its pages, another process destroys keys and wipes the old table."""
    before, reader, read = store.keys(np.arange(N)), LocalKeyStore(folder), files.read_parts
    assert reader.keys(np.array([0])).tobytes() == before[0].tobytes()

    def overtaken(descriptor, name, spans):
        if store.epoch == 1:
            monkeypatch.setattr(files, "read_parts", read)
            store.destroy(GONE)
        return read(descriptor, name, spans)

    monkeypatch.setattr(files, "read_parts", overtaken)
    assert np.array_equal(reader.keys(np.array([20, 6])), before[[20, 6]])
    assert reader.epoch == 2
    with pytest.raises(KeyDestroyed):
        reader.keys(GONE)


def whole_store(folder):
    """A store of format 1, as it was written before there were pages: one block, one of its keys destroyed."""
    folder.mkdir(mode=0o700)
    n, secret, epoch_key = 8, os.urandom(32), os.urandom(32)
    alive = np.ones(n, np.uint8)
    alive[7] = 0
    keys = np.frombuffer(os.urandom(32 * n), np.uint8).reshape(n, 32) * alive[:, None]
    table = local.empty_table()
    names = [local.KeyTable(secret, table.alive, table.names, table.keys).hashed([f"name-{k}"])[0] for k in range(n)]
    hashes = np.frombuffer(b"".join(names), np.uint8).reshape(n, 16) * alive[:, None]
    content = secret + alive.tobytes() + hashes.tobytes() + keys.tobytes()
    sealed = AESGCM(epoch_key).encrypt(bytes(12), content, b"amnesiac keys 1|0123456789abcdef|3")
    said = json.dumps({"format": 1, "store_id": "0123456789abcdef", "epoch": 3})
    for name, written in (
        ("epoch-3.key", epoch_key), ("epoch-3.table", bytes(12) + sealed), ("store.json", said.encode())
    ):  # fmt: skip
        (folder / name).write_bytes(written)
        (folder / name).chmod(0o600)
    return keys


def test_a_store_in_one_block_is_read_and_written_in_pages_at_its_next_change(folder):
    keys = whole_store(folder)
    store = LocalKeyStore(folder)
    assert (store.store_id, store.epoch, len(store)) == ("0123456789abcdef", 3, 8)
    assert np.array_equal(store.keys(np.arange(7)), keys[:7])
    assert store.alive(np.arange(8)).tolist() == [True] * 7 + [False]
    assert store.find(["name-2", "name-7"]).tolist() == [2, -1]
    assert store.ensure(["name-6"]).tolist() == [6]
    assert json.loads((folder / "store.json").read_text())["format"] == 1, "reading changes nothing"
    assert LocalKeyStore(folder).ensure(["new", "name-3"]).tolist() == [8, 3]
    assert json.loads((folder / "store.json").read_text()) == {
        "format": 2, "store_id": "0123456789abcdef", "epoch": 4,
    }  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-4.key", "epoch-4.table", "lock", "store.json"]
    for opened in (store, LocalKeyStore(folder)):
        assert np.array_equal(opened.keys(np.arange(7)), keys[:7])
        assert opened.alive(np.array([7, 8])).tolist() == [False, True]


@pytest.mark.parametrize("said", ["altered", "as format 2"])
def test_a_damaged_store_in_one_block_is_refused(folder, said):
    whole_store(folder)
    if said == "altered":
        content = bytearray((folder / "epoch-3.table").read_bytes())
        content[-1] ^= 1
        (folder / "epoch-3.table").write_bytes(content)
    else:
        content = (folder / "store.json").read_text()
        (folder / "store.json").write_text(content.replace('"format": 1', '"format": 2'))
    with pytest.raises(DamagedStore, match="it was altered, or belongs to another store or epoch"):
        LocalKeyStore(folder).keys(np.array([0]))


def test_a_format_of_the_future_is_refused(store, folder):
    path = folder / "store.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(DamagedStore, match="its format is 3, this version reads 1 and 2"):
        LocalKeyStore(folder).keys(np.array([0]))


@pytest.mark.parametrize("kind", ["pages", "one block"])
def test_a_destruction_killed_anywhere_happens_or_does_not(kind, folder, tmp_path, request):
    """As for a store of one page (test_local), with several pages, and while a store of format 1 is upgraded."""
    if kind == "pages":
        before = request.getfixturevalue("store").keys(np.arange(N))
        first, kept = 1, KEPT
    else:
        before, first, kept = whole_store(folder), 3, np.array([0, 2, 3, 6])
    epoch_key = (folder / f"epoch-{first}.key").read_bytes()
    script = Path(__file__).with_name("killed_store.py")
    command = [sys.executable, str(script), "destroy", str(tmp_path / "copies"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, check=True, env=environment, timeout=300)
    found = []
    for copy in sorted((tmp_path / "copies" / "keys").iterdir()):
        opened = LocalKeyStore(copy)
        alive = opened.alive(GONE)
        assert alive.all() or not alive.any()
        assert np.array_equal(opened.keys(kept), before[kept])
        if alive.all():
            assert np.array_equal(opened.keys(GONE), before[GONE])
        else:
            assert epoch_key not in b"".join(path.read_bytes() for path in copy.iterdir())
        names = [f"epoch-{opened.epoch}.key", f"epoch-{opened.epoch}.table", "store.json"]
        assert sorted({path.name for path in copy.iterdir()} - {"lock"}) == names
        found.append(not alive.any())
        shutil.rmtree(copy)
    assert len(found) > 20
    assert found == sorted(found), "once destroyed, destroyed at every later point"
    assert {False, True} == set(found)
