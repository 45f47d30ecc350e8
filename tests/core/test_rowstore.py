"""Rows come back as they were written, whatever their size, and the documented Zarr layout is what lies on disk."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac import rowstore
from amnesiac.errors import DamagedRow, DamagedStore, StoreError
from amnesiac.page_digests import RefusedRow
from amnesiac.rowstore import RowArray, RowReader, RowWriter, read_attributes, remove_group, shard_rows


def made(n, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)


def write(array, rows, sizes=None, attributes=None):
    writer = RowWriter(array, *rows.shape, attributes)
    start = 0
    for size in sizes if sizes is not None else [len(rows)]:
        writer.append(rows[start : start + size])
        start += size
    writer.append(rows[start:])
    return writer.close()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    n=st.integers(0, 40),
    width=st.integers(1, 67),
    shard_bytes=st.integers(1, 400),
    sizes=st.lists(st.integers(0, 15), max_size=6),
    data=st.data(),
)
def test_rows_come_back(n, width, shard_bytes, sizes, data):
    """Odd sizes, shard boundaries, and rows that are appended in pieces."""
    rows, before = made(n, width), rowstore.SHARD_BYTES
    rowstore.SHARD_BYTES = shard_bytes
    try:
        with tempfile.TemporaryDirectory() as folder:
            array = RowArray(Path(folder) / "g.zarr", "rows", "owner")
            root = write(array, rows, sizes)
            reader = RowReader(array)
            assert (reader.n_rows, reader.row_bytes, reader.root()) == (n, width, root)
            wanted = data.draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=10 if n else 0))
            assert np.array_equal(reader.read(wanted), rows[wanted])
            assert np.array_equal(reader.read(range(n)), rows)
            # the documented format: zarr-python alone reads the same numbers
            group = zarr.open_group(array.group, mode="r")
            assert np.array_equal(group["rows"][:], rows)
            assert group["rows.tags"].shape == (n, 16)
            assert group["rows"].chunks == (1, width)
    finally:
        rowstore.SHARD_BYTES = before


def test_the_root_depends_on_every_row_owner_and_name_but_not_on_the_pieces(tmp_path):
    rows = made(9, 5)
    roots = [
        write(RowArray(tmp_path / str(k), name, owner), values)
        for k, (name, owner, values) in enumerate(
            [("a", "o", rows), ("b", "o", rows), ("a", "p", rows), ("a", "o", rows[::-1])]
        )
    ]
    assert len(set(roots)) == 4
    assert write(RowArray(tmp_path / "again", "a", "o"), rows, [2, 0, 6]) == roots[0]


def test_many_rows_share_few_files(tmp_path):
    array = RowArray(tmp_path / "g", "rows", "owner")
    write(array, made(5000, 3))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 6, (
        "the group, rows and tags with a file of metadata each, the tags' digests"
    )
    assert shard_rows(5000, 3) == 5000
    assert shard_rows(5000, 1 << 20) == 16
    assert shard_rows(5000, 1 << 30) == shard_rows(0, 4) == 1


def test_attributes_and_several_arrays_in_one_group(tmp_path):
    first, second = (RowArray(tmp_path / "g", name, "owner") for name in ("a", "b"))
    write(first, made(4, 3, 1), attributes={"unit": "pixel"})
    write(second, made(6, 2, 2))
    assert read_attributes(tmp_path / "g", "a") == {"unit": "pixel"}
    assert read_attributes(tmp_path / "g", "b") == {}
    assert np.array_equal(RowReader(first).read([3]), made(4, 3, 1)[[3]])
    write(first, made(2, 7, 3))
    assert np.array_equal(RowReader(first).read([0, 1]), made(2, 7, 3))
    assert np.array_equal(RowReader(second).read([5]), made(6, 2, 2)[[5]])
    remove_group(tmp_path / "g")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "garbage"])
def test_damaged_tags_are_a_damaged_row_and_no_other_error(damage, tmp_path):
    array = RowArray(tmp_path / "g", "rows", "owner")
    write(array, made(5, 4))
    [shard] = [path for path in (tmp_path / "g/rows.tags/c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    if damage == "delete":
        shard.unlink()
    else:
        content[3] ^= 1
        whole = {"flip": content, "truncate": content[: len(content) // 2], "garbage": bytes(range(256))}
        shard.write_bytes(whole[damage])
    reader = RowReader(array)
    with pytest.raises(DamagedRow, match="'rows'"):
        reader.read([2])


def test_no_rows_at_all(tmp_path):
    array = RowArray(tmp_path / "g", "rows", "owner")
    root = RowWriter(array, 0, 5).close()
    reader = RowReader(array)
    assert reader.root() == root
    assert reader.read([]).shape == (0, 5)
    with pytest.raises(IndexError):
        reader.read([0])


@pytest.mark.parametrize(
    "rows", [made(2, 4), made(2, 2), made(6, 3), made(1, 3)[0], made(2, 3).astype(np.int16), made(2, 3)[None]]
)
def test_rows_that_do_not_fit(rows, tmp_path):
    writer = RowWriter(RowArray(tmp_path / "g", "rows", "owner"), 5, 3)
    with pytest.raises(ValueError, match=r"rows: u?int\d+ \(.*\) doesn't fit uint8 \[5, 3\]"):
        writer.append(rows)


def test_too_few_and_too_many_rows(tmp_path):
    writer = RowWriter(RowArray(tmp_path / "g", "rows", "owner"), 5, 3)
    writer.append(made(4, 3))
    with pytest.raises(ValueError, match="of which 4 rows are there already"):
        writer.append(made(2, 3))
    with pytest.raises(ValueError, match="4 of 5 rows were written"):
        writer.close()


def test_rows_without_bytes(tmp_path):
    with pytest.raises(ValueError, match="at least one byte"):
        RowWriter(RowArray(tmp_path / "g", "rows", "owner"), 5, 0)


def test_a_buffer_may_be_used_again_after_append(tmp_path):
    array, buffer = RowArray(tmp_path / "g", "rows", "owner"), np.zeros((1, 3), np.uint8)
    writer = RowWriter(array, 4, 3)
    for k in range(4):
        buffer[:] = k
        writer.append(buffer)
    writer.close()
    assert RowReader(array).read(range(4))[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("row", [-1, 4])
def test_rows_that_the_array_does_not_have(row, tmp_path):
    array = RowArray(tmp_path / "g", "rows", "owner")
    write(array, made(4, 3))
    with pytest.raises(IndexError, match="rows has rows 0 to 3"):
        RowReader(array).read([1, row])


def test_rows_of_another_owner_are_refused(tmp_path):
    write(RowArray(tmp_path / "g", "rows", "run-1"), made(4, 3))
    with pytest.raises(DamagedRow, match="row 2 of 'rows' is damaged: checksum differs"):
        RowReader(RowArray(tmp_path / "g", "rows", "run-2")).read([2])


def test_missing_arrays(tmp_path):
    with pytest.raises(DamagedStore, match="row array 'rows' can't be opened"):
        RowReader(RowArray(tmp_path / "g", "rows", "owner"))
    write(RowArray(tmp_path / "g", "rows", "owner"), made(4, 3))
    (tmp_path / "g" / "rows.tags" / "zarr.json").unlink()
    with pytest.raises(DamagedStore, match="row array 'rows' can't be opened"):
        RowReader(RowArray(tmp_path / "g", "rows", "owner"))


def test_a_full_or_forbidden_disk_is_one_clear_error(tmp_path):
    writer = RowWriter(RowArray(tmp_path / "g", "rows", "owner"), 4, 3)
    (tmp_path / "g" / "rows" / "c").write_text("a file where a folder must go")
    writer.append(made(3, 3))
    with pytest.raises(StoreError, match="rows of 'rows' can't be written.*Free disk space"):
        writer.append(made(1, 3))


class Mirror:
    """A protection of another kind, to show that the seam is enough: bytes are inverted on disk."""

    tag_bytes = 5

    def seal(self, rows, index, contexts):
        assert len(rows) == len(index) == len(contexts)
        return 255 - rows, self.tags(contexts)

    def unseal(self, stored, tags, index, contexts):
        [*wrong] = np.flatnonzero((tags != self.tags(contexts)).any(1))
        if wrong:
            raise RefusedRow(wrong[0], "not mine")
        return 255 - stored

    def tags(self, contexts):
        return np.array([list(context[:5]) for context in contexts], np.uint8)


def test_another_protection_takes_the_checksums_place(tmp_path):
    rows, array = made(4, 3), RowArray(tmp_path / "g", "rows", "owner", Mirror())
    write(array, rows)
    assert np.array_equal(RowReader(array).read([0, 1, 2, 3]), rows)
    assert np.array_equal(zarr.open_group(tmp_path / "g", mode="r")["rows"][:], 255 - rows)
    with pytest.raises(DamagedRow, match="row 2 of 'rows' is damaged: not mine"):
        RowReader(RowArray(tmp_path / "g", "rows", "another", Mirror())).read([2, 0])
    with pytest.raises(DamagedStore, match=r"tags of 'rows' are \(4, 5\), expected \(4, 16\)"):
        RowReader(RowArray(tmp_path / "g", "rows", "owner"))
