"""What consumers load from a bucket: a HEAD that only goes forward, and a version that is whole or isn't there."""

from dataclasses import replace

import pytest

from amnesiac.errors import DamagedStore, SpecMismatch, StaleWriter, StoreError
from amnesiac.publication import fetch_published, head_of, mirror, swap_head
from tests.publication.tiny import bits
from tests.storage.faults import every


@pytest.fixture
def published(project):
    project.file("s3", "s17")
    project.run()
    return project


def again(project, fence):
    """HEAD on the same version, by a later writer."""
    now = project.head()
    new = head_of(project.store.read(now.version), fence, now.predecessor, now.batch)
    swap_head(project.store, now.version, new)
    return new


def test_nothing_is_published_yet(project, storage, tmp_path):
    assert mirror(project.store, storage) is None
    assert not storage.listed()
    with pytest.raises(SpecMismatch, match="publishes nothing"):
        fetch_published(storage, tmp_path / "model")


@pytest.mark.parametrize("fault", ["kill", "lose the answer", "cut", "slow down"])
def test_a_consumer_loads_what_was_published_whatever_the_network_does(published, server, storage, tmp_path, fault):
    server.begin(every(2, fault))
    assert mirror(published.store, storage) == published.head()
    head, version = fetch_published(storage, tmp_path / "model")
    assert head == published.head() and bits(version.weights()) == published.weights()
    assert server.faults().count(fault) >= 3
    assert [one.name.rpartition("/")[2] for one in storage.listed()] == [
        "HEAD.json",
        "model.safetensors",
        "record.json",
    ]


def test_mirroring_again_writes_nothing(published, server, storage):
    mirror(published.store, storage)
    server.begin()
    mirror(published.store, storage)
    assert {method for method, *_ in server.seen} == {"GET"}


def test_the_next_version_replaces_head(published, storage, tmp_path):
    mirror(published.store, storage)
    published.file("s5")
    published.run()
    mirror(published.store, storage)
    head, version = fetch_published(storage, tmp_path / "model")
    assert head.version == published.head().version and bits(version.weights()) == published.weights()


def test_an_older_writer_changes_nothing(published, storage, tmp_path):
    other = published.copy(tmp_path / "other")
    again(published, published.head().fence + 5)
    mirror(published.store, storage)
    before = storage.read("HEAD.json")
    with pytest.raises(StaleWriter, match="Give each its own storage.url"):
        mirror(other.store, storage)
    assert storage.read("HEAD.json") == before


def test_a_lost_race_changes_nothing(published, server, storage, tmp_path):
    """Between the look at HEAD and the put another writer publishes: the condition fails, and it stays theirs."""
    mirror(published.store, storage)
    theirs = replace(again(published, published.head().fence + 5))
    mine = (published.store.folder / "HEAD.json").read_bytes()
    again(published, theirs.fence + 1)
    raced = []

    def plan(n, method, path):
        if method == "PUT" and "HEAD.json" in path and not raced:
            raced.append(path)
            storage.write("HEAD.json", mine)
        return "none"

    server.begin(plan)
    with pytest.raises(StaleWriter, match="replaced by another writer meanwhile"):
        mirror(published.store, storage)
    assert raced and storage.read("HEAD.json") == mine


def test_a_version_that_was_altered_is_not_loaded(published, storage, tmp_path):
    mirror(published.store, storage)
    name = f"versions/{published.head().version}/model.safetensors"
    content = storage.read(name)
    storage.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedStore, match="missing or was altered"):
        fetch_published(storage, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    storage.delete(name)
    with pytest.raises(DamagedStore, match="files are missing"):
        fetch_published(storage, tmp_path / "model")


def test_a_server_that_is_gone_is_told_of(published, server, storage):
    server.begin(lambda n, method, path: "refuse")
    with pytest.raises(StoreError, match=r"HEAD.json can't be reached.*credentials and rights"):
        mirror(published.store, storage)
