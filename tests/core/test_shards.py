"""Rows read from shards directly: what zarr reads from the same files, and errors where they were altered."""

import struct

import numpy as np
import pytest
import zarr

from amnesiac.shards import ShardedRows
from amnesiac.tables import create_array, local_array

N, WIDTH, SHARD = 23, 7, 8


def made(folder, chunk, writer="tensorstore"):
    """Random rows, written to an array of three shards, the last one not full."""
    rows = np.random.default_rng(0).integers(1, 256, (N, WIDTH), np.uint8)
    create_array(zarr.open_group(folder, mode="w", zarr_format=3), "rows", (N, WIDTH), SHARD, {}, chunk)
    if writer == "zarr":
        zarr.open_group(folder, mode="r+")["rows"][:] = rows
    else:
        local_array(folder / "rows").write(rows).result()
    return rows


@pytest.mark.parametrize("writer", ["zarr", "tensorstore"])
@pytest.mark.parametrize("chunk", [1, 2, 8])
@pytest.mark.parametrize(
    "index", [range(N), [22], [3, 4, 5, 21, 22], [20, 0, 9, 1, 8], [5, 5, 2, 5], []], ids=lambda one: str(len(one))
)
def test_rows_are_those_that_zarr_reads(tmp_path, writer, chunk, index):
    rows, wanted = made(tmp_path, chunk, writer), np.array(index, np.int64)
    found = ShardedRows(tmp_path / "rows")
    assert found.shape == (N, WIDTH)
    np.testing.assert_array_equal(found.read(wanted), rows[wanted])
    np.testing.assert_array_equal(found.read(wanted), zarr.open_group(tmp_path, mode="r")["rows"][:][wanted])


def test_what_was_never_written_is_zeros_as_zarr_has_it(tmp_path):
    create_array(zarr.open_group(tmp_path, mode="w", zarr_format=3), "rows", (N, WIDTH), SHARD, {})
    array = zarr.open_group(tmp_path, mode="r+")["rows"]
    array[2:4] = 9
    assert (tmp_path / "rows/c/0/0").exists() and not (tmp_path / "rows/c/1/0").exists()
    found = ShardedRows(tmp_path / "rows").read(np.array([1, 2, 3, 4, 9]))
    np.testing.assert_array_equal(found, array[:][[1, 2, 3, 4, 9]])
    assert found[1].all() and not found[0].any() and not found[4].any()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:], "its index was altered"),
        (lambda content: content[:-1], "its index was altered, or it is cut short"),
        (lambda content: b"", "cut short"),
    ],
    ids=["index", "end", "empty"],
)
def test_a_shard_that_was_altered_or_cut_is_refused(tmp_path, damage, said):
    made(tmp_path, 1)
    shard = tmp_path / "rows/c/1/0"
    shard.write_bytes(damage(shard.read_bytes()))
    found = ShardedRows(tmp_path / "rows")
    with pytest.raises(ValueError, match=f"c/1/0.*{said}"):
        found.read(np.array([9]))
    assert found.read(np.array([0, 20])).all()


@pytest.fixture
def long(tmp_path):
    """A shard of so many rows that one or two are found by their own entries; where the index begins in its file."""
    rows = np.random.default_rng(1).integers(1, 256, (600, WIDTH), np.uint8)
    create_array(zarr.open_group(tmp_path, mode="w", zarr_format=3), "rows", rows.shape, 600, {})
    local_array(tmp_path / "rows").write(rows).result()
    return rows, tmp_path / "rows/c/0/0", 600 * WIDTH


@pytest.mark.parametrize("index", [[0], [599], [300, 7], [7, 7]])
def test_few_rows_of_a_long_shard_are_found_by_their_own_entries(long, tmp_path, index):
    rows, shard, begin = long
    content = bytearray(shard.read_bytes())
    content[begin + 16 * 100] ^= 1  # the entry of another row: the sum of the index is wrong, and isn't looked at
    shard.write_bytes(content)
    found = ShardedRows(tmp_path / "rows")
    np.testing.assert_array_equal(found.read(np.array(index)), rows[index])
    with pytest.raises(ValueError, match="its index was altered"):
        found.read(np.arange(9))


@pytest.mark.parametrize(
    ("entry", "said"),
    [((-3, WIDTH), "aren't 1 rows of 7 bytes"), ((0, WIDTH + 1), "aren't 1 rows of 7"),
     ((2**63 - 1, WIDTH), "is cut short"), ((600 * (WIDTH + 16), WIDTH), "is cut short")],
)  # fmt: skip
def test_an_altered_entry_of_a_long_shard_is_refused(long, tmp_path, entry, said):
    _, shard, begin = long
    content = bytearray(shard.read_bytes())
    content[begin + 16 * 5 : begin + 16 * 6] = struct.pack("<qq", *entry)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"c/0/0.*{said}"):
        ShardedRows(tmp_path / "rows").read(np.array([5]))


def test_a_long_shard_that_is_cut_to_nothing_is_refused(long, tmp_path):
    long[1].write_bytes(b"")
    with pytest.raises(ValueError, match="c/0/0 is cut short"):
        ShardedRows(tmp_path / "rows").read(np.array([5]))


def test_only_whole_rows_of_plain_bytes_are_read(tmp_path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("packed", shape=(N, WIDTH), chunks=(1, WIDTH), shards=(8, WIDTH), dtype="uint8")
    group.create_array("cut", shape=(N, 8), chunks=(1, 4), shards=(8, 8), dtype="uint8", compressors=None, fill_value=0)
    for name in ("packed", "cut"):
        with pytest.raises(ValueError, match="aren't whole rows of plain bytes"):
            ShardedRows(tmp_path / name)
