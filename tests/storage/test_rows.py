"""A ledger whose rows lie in a bucket: the same bits, no more than were asked for, whatever the network does."""

import json
import shutil

import numpy as np
import pytest
import zarr
from obstore.store import S3Store

from amnesiac import rowstore
from amnesiac.elsewhere import ELSEWHERE, move_rows
from amnesiac.errors import DamagedRow, DamagedStore, StoreError
from amnesiac.rowstore import RowArray, RowReader, RowWriter
from amnesiac.verification import Version, verify
from tests.storage.faults import every

ROWS, ROW_BYTES = 900, 512


@pytest.fixture
def array(tmp_path, monkeypatch):
    """A row array of three shards, and what is in it."""
    monkeypatch.setattr(rowstore, "SHARD_BYTES", 300 * ROW_BYTES)
    content = np.random.default_rng(0).integers(0, 256, (ROWS, ROW_BYTES), dtype=np.uint8)
    array = RowArray(tmp_path / "rows.zarr", "settled", "run")
    writer = RowWriter(array, ROWS, ROW_BYTES)
    writer.append(content)
    writer.close()
    return array, content


def test_a_deletion_from_moved_rows_is_the_same_bit_for_bit(project, storage):
    expected = project.copy(project.root.with_name("local"))
    move_rows(project.root / "ledger/rows.zarr", storage.below("ledger"))
    left = {path.parent.name for path in (project.root / "ledger/rows.zarr").glob("*/c")}
    assert left == {"samples.table", "settled.tags", "settled-class.tags"}
    for one in (expected, project):
        one.file("s3", "s17", "s40")
        one.run()
    assert project.weights() == expected.weights()
    assert project.head().ledger_roots == expected.head().ledger_roots


def test_verification_reads_the_moved_rows(project, storage):
    move_rows(project.root / "ledger/rows.zarr", storage.below("ledger"))
    model = project.root / "model.safetensors"
    found = verify(project.root / "ledger", model, Version(model))
    assert found.identical and found.read == found.rows > 0 and not found.problems


def test_no_more_is_read_than_was_asked_for(array, server, storage):
    array, content = array
    move_rows(array.group, storage)
    reader = RowReader(array)
    server.begin()
    wanted = [7, 8, 650]
    assert np.array_equal(reader.read(wanted), content[wanted])
    index_bytes = 2 * (300 * 16 + 4)  # of the two shards that were touched
    assert sum(size for *_, size in server.seen) == len(wanted) * ROW_BYTES + index_bytes
    assert not [path for _, path, *_ in server.seen if "/c/1/" in path], "the shard between wasn't touched"


@pytest.mark.parametrize("fault", ["kill", "lose the answer", "cut", "slow down"])
def test_broken_requests_are_repeated(array, server, storage, fault):
    array, content = array
    server.begin(every(2, fault))
    move_rows(array.group, storage)
    assert np.array_equal(RowReader(array).read([0, 299, 300, 899]), content[[0, 299, 300, 899]])
    assert server.faults().count(fault) >= 5


def test_moving_again_sends_nothing_and_a_killed_move_goes_on(array, server, storage, tmp_path):
    array, content = array
    copy = shutil.copytree(array.group, tmp_path / "again.zarr")
    name = move_rows(array.group, storage)
    shards = [one.name for one in storage.listed() if "/c/" in one.name and ".tags" not in one.name]
    assert len(shards) == 3
    storage.delete(shards[1])  # as if killed before it was sent
    server.begin()
    assert move_rows(copy, storage) == name
    assert [method for method, *_ in server.seen if method != "GET"] == ["PUT"]
    assert np.array_equal(RowReader(RowArray(copy, "settled", "run")).read([450]), content[[450]])


def test_other_rows_lie_under_another_name(array, storage, tmp_path):
    array, content = array
    other = RowArray(tmp_path / "other.zarr", "settled", "run")
    writer = RowWriter(other, ROWS, ROW_BYTES)
    writer.append(np.where(np.arange(ROWS)[:, None] == 5, 1, content).astype(np.uint8))
    writer.close()
    assert move_rows(array.group, storage) != move_rows(other.group, storage)


def test_lost_and_altered_rows_are_damage(array, storage):
    array, content = array
    name = move_rows(array.group, storage)
    storage.delete(f"{name}/settled/c/2/0")
    with pytest.raises(DamagedRow, match="row 601 of 'settled' is damaged"):
        RowReader(array).read([5, 601])
    shard = bytearray(storage.read(f"{name}/settled/c/0/0"))
    shard[5 * ROW_BYTES] ^= 1
    storage.write(f"{name}/settled/c/0/0", bytes(shard))
    with pytest.raises(DamagedRow, match="row 5 of 'settled' is damaged"):
        RowReader(array).read([5])
    (array.group / ELSEWHERE).write_text("{}")
    with pytest.raises(DamagedStore, match=r"elsewhere.json can't be read.*dvc checkout"):
        RowReader(array)


def test_a_server_that_refuses_is_no_damage(array, server, storage):
    array, _ = array
    move_rows(array.group, storage)
    server.begin(lambda n, method, path: "refuse")
    with pytest.raises(StoreError, match="can't be reached.*rights") as caught:
        RowReader(array)
    assert not isinstance(caught.value, DamagedStore)


def test_zarr_reads_them_through_its_own_store(array, server, storage):
    """Nothing of ours is needed: the group in the bucket is plain Zarr, by obstore."""
    array, content = array
    name = move_rows(array.group, storage)
    store = S3Store(
        storage.address.bucket, prefix=f"{storage.address.prefix}/{name}", endpoint=server.url, region="us-east-1",
        client_options={"allow_http": True},
    )  # fmt: skip
    group = zarr.open_group(zarr.storage.ObjectStore(store, read_only=True), mode="r")
    assert np.array_equal(group["settled"].oindex[np.array([3, 700])], content[[3, 700]])


def test_encrypted_rows_stay_encrypted(array, storage):
    """What is moved are the files: nothing is decrypted on the way."""
    array, _ = array
    before = (array.group / "settled/c/0/0").read_bytes()
    name = move_rows(array.group, storage)
    assert storage.read(f"{name}/settled/c/0/0") == before
    assert json.loads((array.group / ELSEWHERE).read_text()) == {"url": f"{storage.url}/{name}"}
