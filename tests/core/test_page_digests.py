"""A few rows of a table are read and checked without the rest; nothing altered is ever returned."""

import json

import numpy as np
import pytest

from amnesiac.errors import DamagedStore
from amnesiac.ledger.index import KEY, LABEL, LEDGER_ROW, SampleIndex, write_index
from amnesiac.page_digests import PAGE_ROWS, RefusedRow, page_digests
from amnesiac.tables import PagedTable, write_table

N = 3 * PAGE_ROWS + 7


def table(n, width=9):
    return np.random.default_rng(n).integers(0, 256, (n, width), np.uint8)


def shard(folder, name="t"):
    [path] = [path for path in (folder / "g.zarr" / name / "c").rglob("*") if path.is_file()]
    return path


@pytest.mark.parametrize("n", [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, N])
def test_what_was_written_is_read_in_any_order(tmp_path, n):
    rows = table(n)
    root = write_table(tmp_path / "g.zarr", "t", rows)
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert (read.root(), read.shape) == (root, (n, 9))
    order = np.random.default_rng(0).permutation(n)
    for index in (order[:5], order, np.repeat(order[:1], 3), order[:0]):
        assert np.array_equal(read.read(index.astype(np.int64)), rows[index])


def test_roots_differ_by_any_byte_and_by_length():
    rows = table(N)
    other = rows.copy()
    other[-1, 0] ^= 1
    assert len({page_digests(t).root for t in (rows, other, rows[:-1], rows[:-7], np.vstack([rows, rows[:1]]))}) == 5


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
    said = json.loads(path.read_text())
    said["attributes"]["pages"] = said["attributes"]["pages"][:-1]
    path.write_text(json.dumps(said))
    read = PagedTable(tmp_path / "g.zarr", "t")
    assert read.root() != root
    with pytest.raises(RefusedRow):
        read.read(np.array([N - 1]))


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
    with pytest.raises(DamagedStore, match="table of samples can't be read.*don't match their digest.*dvc checkout"):
        SampleIndex(tmp_path / "g.zarr", root).of([0], KEY)
    (tmp_path / "g.zarr/samples.table/zarr.json").unlink()
    with pytest.raises(DamagedStore, match="table of samples can't be opened"):
        SampleIndex(tmp_path / "g.zarr", root)
