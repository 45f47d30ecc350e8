"""Encrypted rows and texts: what comes back, what doesn't, and what lies on disk."""

import hashlib

import numpy as np
import pytest
import zarr
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac import rowstore
from amnesiac.errors import DamagedRow, KeyDestroyed
from amnesiac.keys import Encrypted, LocalKeyStore, seal_texts, unseal_texts
from amnesiac.page_digests import RefusedRow
from amnesiac.rowstore import RowArray, RowReader, RowWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = LocalKeyStore(tmp_path_factory.mktemp("module") / "keys", create=True)
    made.ensure([f"n{k}" for k in range(50)])
    return made


def made_rows(n, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)


def write(array, rows, size=3):
    writer = RowWriter(array, *rows.shape)
    for start in range(0, len(rows), size):
        writer.append(rows[start : start + size])
    return writer.close()


def array_at(folder, store, numbers, owner="run", name="rows"):
    return RowArray(folder / "g.zarr", name, owner, Encrypted(store, np.array(numbers)))


def on_disk(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=st.integers(0, 20), width=st.integers(1, 70), shard=st.integers(1, 400), data=st.data())
def test_rows_come_back(store, tmp_path_factory, n, width, shard, data):
    numbers = data.draw(st.lists(st.integers(0, 49), min_size=n, max_size=n))
    rows, before = made_rows(n, width), rowstore.SHARD_BYTES
    rowstore.SHARD_BYTES = shard
    try:
        array = array_at(tmp_path_factory.mktemp("rows"), store, np.array(numbers, np.int64))
        root = write(array, rows)
        reader = RowReader(array)
        wanted = data.draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=8 if n else 0))
        assert (reader.root(), reader.read(range(n)).tolist()) == (root, rows.tolist())
        assert np.array_equal(reader.read(wanted), rows[wanted])
    finally:
        rowstore.SHARD_BYTES = before


def test_the_bytes_are_those_of_the_documented_construction(store, tmp_path):
    rows, array = made_rows(4, 33), array_at(tmp_path, store, [7, 3, 3, 9])
    write(array, rows)
    group = zarr.open_group(tmp_path / "g.zarr", mode="r")
    stored, tags = group["rows"][:], group["rows.tags"][:]
    assert tags.shape == (4, 28)
    for k, number in enumerate([7, 3, 3, 9]):
        context = hashlib.blake2b(f"run|rows|{k}".encode(), digest_size=32).digest()
        data_key = store.keys(np.array([number]))[0].tobytes()
        both = hashlib.blake2b(key=data_key, person=b"amnesiac rows 1").digest()
        content = hashlib.sha256(rows[k].tobytes()).digest()
        nonce = hashlib.blake2b(context + content, key=both[32:], digest_size=12).digest()
        sealed = AESGCM(both[:32]).encrypt(nonce, rows[k].tobytes(), context)
        assert (stored[k].tobytes(), tags[k].tobytes()) == (sealed[:-16], nonce + sealed[-16:])


def test_the_same_rows_are_the_same_bytes_and_nothing_else_is(store, tmp_path):
    """Or a stage that runs twice would give DVC other hashes; and a nonce must never meet two contents."""
    same = np.repeat(made_rows(1, 40), 3, 0)
    for name in ("a", "b"):
        write(array_at(tmp_path / name, store, [1, 1, 2]), same, size=1 if name == "a" else 3)
    assert on_disk(tmp_path / "a") == on_disk(tmp_path / "b")
    other = same.copy()
    other[0, 0] ^= 1
    write(array_at(tmp_path / "c", store, [1, 1, 2]), other)
    write(array_at(tmp_path / "d", store, [1, 1, 2], owner="another"), same)
    groups = [zarr.open_group(tmp_path / name / "g.zarr", mode="r") for name in "acd"]
    stored = [group["rows"][k].tobytes() for group in groups for k in range(3)]
    nonces = [group["rows.tags"][k, :12].tobytes() for group in groups for k in range(3)]
    # of c the rows 1 and 2 are those of a; all others differ in content, place, key or owner
    assert len(set(stored)) == len(set(nonces)) == 7
    assert (stored[4], stored[5]) == (stored[1], stored[2])


def test_no_row_lies_in_clear(store, tmp_path):
    rows = made_rows(6, 64)
    write(array_at(tmp_path, store, range(6)), rows)
    content = b"".join(on_disk(tmp_path).values())
    assert not any(row[start : start + 8].tobytes() in content for row in rows for start in range(0, 64, 8))


def test_every_altered_byte_of_row_and_tag_is_refused(store, tmp_path):
    rows, array = made_rows(3, 9), array_at(tmp_path, store, [4, 5, 6])
    write(array, rows)
    group = zarr.open_group(tmp_path / "g.zarr", mode="r+")
    for place in range(9):
        group["rows"][1, place] ^= 32
        with pytest.raises(DamagedRow, match="row 1 of 'rows' is damaged: its authentication tag differs"):
            RowReader(array).read([0, 1])
        assert np.array_equal(RowReader(array).read([2, 0]), rows[[2, 0]])
        group["rows"][1, place] ^= 32
    for place in range(28):
        group["rows.tags"][1, place] ^= 32
        with pytest.raises(DamagedRow, match="row 1 of 'rows' is damaged: rows 0 to 31 of 'rows.tags' don't match"):
            RowReader(array).read([1])
        group["rows.tags"][1, place] ^= 32
    assert np.array_equal(RowReader(array).read([1]), rows[[1]])


def test_swapped_rows_other_owners_keys_and_stores_are_refused(store, tmp_path):
    rows, array = made_rows(3, 9), array_at(tmp_path, store, [4, 4, 6])
    write(array, rows)
    stranger = LocalKeyStore(tmp_path / "keys", create=True)
    stranger.ensure([str(k) for k in range(9)])
    for wrong in (
        array_at(tmp_path, store, [4, 4, 6], owner="another run"),
        array_at(tmp_path, store, [5, 4, 6]),
        array_at(tmp_path, stranger, [4, 4, 6]),
    ):
        with pytest.raises(DamagedRow, match="row 0 of"):
            RowReader(wrong).read([0])
    group = zarr.open_group(tmp_path / "g.zarr", mode="r+")
    for name in ("rows", "rows.tags"):
        group[name][:2] = group[name][:2][::-1]
    for row in (0, 1):  # both of the same subject: the place tells them apart
        with pytest.raises(DamagedRow, match=f"row {row} of"):
            RowReader(array).read([row])


def test_a_destroyed_key_takes_its_rows_and_no_others(tmp_path):
    own = LocalKeyStore(tmp_path / "keys", create=True)
    own.ensure(["a", "b", "c"])
    rows, array = made_rows(4, 9), array_at(tmp_path, own, [0, 1, 0, 2])
    write(array, rows)
    before = on_disk(tmp_path / "g.zarr")
    own.destroy(np.array([0]))
    reader = RowReader(array_at(tmp_path, LocalKeyStore(tmp_path / "keys"), [0, 1, 0, 2]))
    with pytest.raises(KeyDestroyed, match="2 of 3 keys asked for were destroyed"):
        reader.read([0, 1, 2])
    assert np.array_equal(reader.read([3, 1]), rows[[3, 1]])
    assert on_disk(tmp_path / "g.zarr") == before, "the rows' files stay what they were"
    with pytest.raises(KeyDestroyed):
        write(array, rows)


TEXTS = ["mnist-5k-00042", "", "ends with a NUL\0", "\x80", "ünïcode ✓", "x" * 64, "y" * 300]


def test_texts_come_back_and_lie_nowhere_in_clear(store):
    numbers = np.array([3, 3, 1, 2, 4, 5, 6])
    sealed = seal_texts(store, numbers, TEXTS, "column")
    assert unseal_texts(store, numbers, sealed, "column") == TEXTS
    assert sealed == seal_texts(store, numbers, TEXTS, "column"), "deterministic"
    assert len({len(text) for text in sealed[:6]}) == 1, "their length tells nothing"
    assert not any(text.encode()[:8] in b"".join(sealed) for text in TEXTS if len(text) > 8)
    twice = seal_texts(store, np.array([3, 3]), ["same", "same"], "column")
    assert twice[0] != twice[1], "not even that two of a subject are equal"


@pytest.mark.parametrize("place", [0, 11, 12, 50, -1])
def test_altered_and_moved_texts_are_refused(store, place):
    numbers = np.array([3, 3])
    first, second = seal_texts(store, numbers, ["a", "b"], "column")
    altered = bytearray(second)
    altered[place] ^= 1
    for sealed, column, at in (([first, bytes(altered)], "column", 1), ([second, first], "column", 0)):
        with pytest.raises(RefusedRow, match="authentication tag") as caught:
            unseal_texts(store, numbers, sealed, column)
        assert caught.value.at == at
    for sealed in ([first, second], [first, b""]):
        with pytest.raises(RefusedRow):
            unseal_texts(store, numbers, sealed, "another column" if sealed[1] else "column")


def test_texts_of_a_destroyed_key(tmp_path):
    own = LocalKeyStore(tmp_path / "keys", create=True)
    numbers = own.ensure(["a", "b", "a"])
    sealed = seal_texts(own, numbers, ["one", "two", "three"], "column")
    own.destroy(numbers[:1])
    assert unseal_texts(own, numbers, sealed, "column") == [None, "two", None]
    with pytest.raises(KeyDestroyed):
        seal_texts(own, numbers, ["one", "two", "three"], "column")
