"""A few rows of a table are read and checked without the rest; nothing altered is ever returned."""

import json

import numpy as np
import pytest
import zarr

from amnesiac.errors import DamagedStore
from amnesiac.ledger.index import KEY, LABEL, LEDGER_ROW, SampleIndex, write_index
from amnesiac.page_digests import (
    GROUP_PAGES,
    LISTED_PAGE_ROWS,
    PAGE_ROWS,
    HeldPages,
    ListedDigests,
    RefusedRow,
    page_digest,
    page_digests,
)
from amnesiac.tables import PagedTable, create_array, local_array, write_table

N = 3 * PAGE_ROWS + 7


def table(n, width=9):
    return np.random.default_rng(n).integers(0, 256, (n, width), np.uint8)


def shard(folder, name="t"):
    [path] = [path for path in (folder / "g.zarr" / name / "c").rglob("*") if path.is_file()]
    return path


@pytest.mark.parametrize("n", [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, N, PAGE_ROWS * GROUP_PAGES + 5])
def test_what_was_written_is_read_in_any_order(tmp_path, n):
    rows = table(n)
    root = write_table(tmp_path / "g.zarr", "t", rows)
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert (read.root(), read.shape) == (root, (n, 9))
    assert n == 0 or np.array_equal(zarr.open_group(tmp_path / "g.zarr", mode="r")["t"][:], rows), "any Zarr reads it"
    order = np.random.default_rng(0).permutation(n)
    for index in (order[:5], order, np.repeat(order[:1], 3), order[:0]):
        assert np.array_equal(read.read(index.astype(np.int64)), rows[index])


def test_roots_differ_by_any_byte_and_by_length():
    rows = table(N)
    other = rows.copy()
    other[-1, 0] ^= 1
    assert len({page_digests(t)[0].root for t in (rows, other, rows[:-1], rows[:-7], np.vstack([rows, rows[:1]]))}) == 5


def test_only_the_altered_page_is_refused_and_no_other_is_read(tmp_path):
    rows = table(N)
    write_table(tmp_path / "g.zarr", "t", rows)
    content = bytearray(shard(tmp_path).read_bytes())
    at = bytes(content).index(rows[PAGE_ROWS].tobytes())
    content[at] ^= 1
    shard(tmp_path).write_bytes(content)
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert np.array_equal(read.read(np.array([0, N - 1])), rows[[0, N - 1]])
    for _ in range(2):
        with pytest.raises(RefusedRow, match=f"rows {PAGE_ROWS} to {2 * PAGE_ROWS - 1} of 't' don't match") as e:
            read.read(np.array([5, 2 * PAGE_ROWS - 1, PAGE_ROWS]))
        assert e.value.at == 1


def test_altered_digests_give_another_root(tmp_path):
    root = write_table(tmp_path / "g.zarr", "t", table(N))
    path = tmp_path / "g.zarr/t/zarr.json"
    content = path.read_text()
    said = json.loads(content)
    for name, value in (("groups", [said["attributes"]["groups"][0][::-1]]), ("groups", []), ("page_rows", 16)):
        path.write_text(json.dumps(said | {"attributes": said["attributes"] | {name: value}}))
        read = PagedTable(tmp_path / "g.zarr", "t")
        assert read.root() != root
        with pytest.raises(RefusedRow):
            read.read(np.array([N - 1]))


@pytest.mark.parametrize("damage", ["altered", "swapped", "cut short", "lost"])
def test_damaged_digests_of_pages_refuse_their_group_alone(tmp_path, damage):
    n = 2 * GROUP_PAGES * PAGE_ROWS
    rows = table(n)
    root = write_table(tmp_path / "g.zarr", "t", rows)
    path = tmp_path / "g.zarr/t/digests"
    content = bytearray(path.read_bytes())
    assert len(content) == 32 * n // PAGE_ROWS
    if damage == "altered":
        content[-1] ^= 1
    elif damage == "swapped":
        content[-64:-32], content[-32:] = content[-32:], content[-64:-32]
    path.write_bytes(content[:-1] if damage == "cut short" else content)
    if damage == "lost":
        path.unlink()
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert read.root() == root
    if damage != "lost":
        assert np.array_equal(read.read(np.array([0, n // 2 - 1])), rows[[0, n // 2 - 1]])
    with pytest.raises(FileNotFoundError if damage == "lost" else RefusedRow):
        read.read(np.array([n // 2]))


def test_swapped_pages_are_refused(tmp_path):
    rows = table(N)
    write_table(tmp_path / "g.zarr", "t", rows)
    swapped = np.concatenate([rows[PAGE_ROWS : 2 * PAGE_ROWS], rows[:PAGE_ROWS], rows[2 * PAGE_ROWS :]])
    shard(tmp_path).write_bytes(swapped.tobytes())
    for row in (0, PAGE_ROWS):
        with pytest.raises(RefusedRow):
            PagedTable(tmp_path / "g.zarr", "t").read(np.array([row]))


@pytest.mark.parametrize("n", [1, LISTED_PAGE_ROWS, 3 * LISTED_PAGE_ROWS + 7])
def test_tables_that_list_their_pages_are_still_read(tmp_path, n):
    """How they were written before: shards of pages of 128 rows, all pages' digests in the attributes."""
    rows, page = table(n), min(n, LISTED_PAGE_ROWS)
    digests = [page_digest(rows[k : k + LISTED_PAGE_ROWS].tobytes()).hex() for k in range(0, n, LISTED_PAGE_ROWS)]
    group = zarr.open_group(tmp_path / "g.zarr", mode="a", zarr_format=3)
    create_array(group, "t", rows.shape, -(-n // page) * page, {"pages": digests}, page)
    local_array(tmp_path / "g.zarr/t").write(rows).result()
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert read.root() == ListedDigests(n, digests).root
    order = np.random.default_rng(0).permutation(n)
    assert np.array_equal(read.read(order), rows[order])
    content = bytearray(shard(tmp_path).read_bytes())
    content[bytes(content).index(rows[0].tobytes())] ^= 1
    shard(tmp_path).write_bytes(content)
    with pytest.raises(RefusedRow, match="rows 0 to 127 of 't' don't match their digest"):
        PagedTable(tmp_path / "g.zarr", "t").read(np.array([0]))


def test_held_pages_give_back_the_rows_of_pages_taken_in_any_order():
    rows = table(35)
    held = HeldPages(35, 4, 9)
    for pages in ([3, 8], [0], [1, 2, 5, 7]):
        index = np.concatenate([np.arange(4 * p, min(4 * p + 4, 35)) for p in pages])
        assert held.missing(index[::-1]).tolist() == pages
        held.hold(np.array(pages), rows[index])
        assert held.missing(index).tolist() == []
    wanted = np.array([34, 0, 12, 31, 5, 5])
    assert np.array_equal(held.of(wanted), rows[wanted])
    assert held.missing(np.arange(35)).tolist() == [4, 6]


def numbers(n):
    return [np.random.default_rng(k).integers(-1, 1 << 40, n) for k in range(3)]


def test_the_index_of_samples_gives_back_its_columns(tmp_path):
    columns = numbers(N)
    index = SampleIndex(tmp_path / "g.zarr", write_index(tmp_path / "g.zarr", *columns))
    assert len(index) == N
    for column, expected in zip((KEY, LEDGER_ROW, LABEL), columns, strict=True):
        assert np.array_equal(index.all(column), expected)
        assert index.of([7, 3, 7], column).tolist() == expected[[7, 3, 7]].tolist()
    assert index.of([], KEY).tolist() == []
    for wrong in ([-1], [N]):
        with pytest.raises(IndexError, match=f"samples 0 to {N - 1}, not {wrong[0]}"):
            index.of(wrong, KEY)


def test_an_index_that_was_altered_lost_or_is_another_runs_is_refused(tmp_path):
    root = write_index(tmp_path / "g.zarr", *numbers(N))
    with pytest.raises(DamagedStore, match="isn't that of the manifest. Restore the ledger with `dvc checkout`"):
        SampleIndex(tmp_path / "g.zarr", root[::-1])
    shard(tmp_path, "samples.table").unlink()
    with pytest.raises(DamagedStore, match="table of samples can't be read: .*samples.table/c/0/0.*dvc checkout"):
        SampleIndex(tmp_path / "g.zarr", root).of([0], KEY)
    (tmp_path / "g.zarr/samples.table/zarr.json").unlink()
    with pytest.raises(DamagedStore, match="table of samples can't be opened"):
        SampleIndex(tmp_path / "g.zarr", root)
