"""Versions by content, HEAD and its swap: what is altered, foreign, stale or lost is refused, and nothing changes."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amnesiac.errors import BatchConflict, DamagedStore, InputError, SpecMismatch, StaleWriter
from amnesiac.hashing import hash_json
from amnesiac.publication import VersionStore, publish, read_head, recover, roll_back, swap_head
from tests.publication.tiny import MODEL, RETRAINED, bits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def published(project):
    """Two batches of one request."""
    project.file("s1", name="one")
    project.run()
    project.file("s2", name="two")
    project.run()
    return project


def opened(project, **facts):
    """A batch over what is pending, staged and evaluated."""
    batch = project.batches.open([request.request_id for request in project.pending()])
    batch = project.batches.advance(batch, "PLANNED")
    project.stage()
    return project.batches.advance(project.batches.advance(batch, "STAGED"), "EVALUATED")


def test_a_version_is_named_by_its_content(published):
    head = published.head()
    version = published.store.read(head.version)
    record = json.loads((version.folder / "record.json").read_text())
    assert head.version == hash_json(record) == version.id
    assert set(version.files) == {path.name for path in version.folder.iterdir()} - {"record.json"}
    assert version.facts["requests"] == ["one", "two"] == list(head.requests)
    assert version.positions() == (1, 2)
    assert version.facts["groups"] == [1, 2]
    assert published.store.write(published.staged).id == head.version, "the same content is the same version"
    assert len(published.store.ids()) == 2


def test_what_the_subtraction_gave_is_kept_where_other_weights_are_published(project):
    plain = project.copy(project.root.parent / "plain")
    plain.file("s1", "s2")
    project.file("s1")
    project.run(published=RETRAINED)
    version = project.store.read(project.head().version)
    assert version.subtracted.name == "subtracted.safetensors"
    before = version.master()
    assert all(torch.equal(value, before[name].float() + 1) for name, value in version.weights().items())
    project.file("s2")
    project.run()
    after = project.store.read(project.head().version)
    assert after.subtracted.name == "model.safetensors"
    at_once = plain.run()
    assert bits(after.weights()) == bits(plain.store.read(at_once.version).weights()), "from what subtraction gave"


@pytest.mark.parametrize("name", ["model.safetensors", "master.safetensors", "forgotten.safetensors"])
def test_altered_and_lost_files_are_named(published, name):
    version = published.store.read(published.head().version)
    path = version.folder / name
    load = {"model": version.weights, "master": version.master, "forgotten": version.positions}[path.stem]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for use in (version.check, load, lambda: published.store.write(published.staged)):
        with pytest.raises(DamagedStore, match=f"{name} is missing or was altered"):
            use()
    path.unlink()
    with pytest.raises(DamagedStore, match=f"{name} is missing or was altered"):
        version.check()


def test_an_altered_record_or_a_wrong_id_is_refused(published):
    version = published.store.read(published.head().version)
    path = version.folder / "record.json"
    for text in (path.read_text().replace('"two"', '"six"'), "[]", "{"):
        path.write_text(text)
        with pytest.raises(DamagedStore, match=r"record\.json (was altered|can't be read)"):
            published.store.read(version.id)
    path.unlink()
    with pytest.raises(SpecMismatch, match="isn't in .*versions"):
        published.store.read(version.id)
    with pytest.raises(SpecMismatch, match=r"'\.\./x' isn't a version's id"):
        published.store.read("../x")


def test_an_altered_head_is_refused(published):
    path = published.store.folder / "HEAD.json"
    for text in (path.read_text().replace('"one"', '"six"'), "", "[]", '{"head": {}, "sha256": ""}'):
        path.write_text(text)
        for use in (published.head, published.run, lambda: roll_back(published.batches, published.store)):
            with pytest.raises(DamagedStore, match=r"HEAD\.json (was altered|can't be read).*backup"):
                use()
        assert path.read_text() == text


def forge(project, **changes):
    path = project.store.folder / "HEAD.json"
    content = json.loads(path.read_text())["head"] | changes
    path.write_text(json.dumps({"head": content, "sha256": hash_json(content)}))


def test_a_forged_head_that_says_what_its_version_doesnt_is_refused(published):
    forge(published, requests=["one", "two", "three"])
    with pytest.raises(SpecMismatch, match=r"HEAD\.json doesn't say what version .* does"):
        published.head()
    forge(published, version="0" * 64)
    with pytest.raises(SpecMismatch, match="version 000000000000 isn't in"):
        published.head()


def test_another_runs_store_is_refused(published, train_method):
    other = train_method("settled", seed=5)
    run = other.ledger.manifest.run_id
    assert read_head(published.store, published.head().run_id) == published.head()
    with pytest.raises(SpecMismatch, match=f"publishes a version of run .*, model and ledger belong to run {run}"):
        read_head(published.store, run)
    other.file("s1")
    other.run()
    foreign = other.store.read(other.head().version)
    with pytest.raises(SpecMismatch, match=f"version {foreign.id[:12]} isn't in"):
        swap_head(published.store, published.head().version, replace(other.head(), fence=99))


def test_a_stale_fence_or_a_head_that_moved_publishes_nothing(published):
    now = published.head()
    older = published.store.read(now.predecessor).id
    for expected, fence, said in [
        (older, 99, "which this one was to replace"),
        (None, 99, "not none, which this one was to replace"),
        (now.version, now.fence, "was taken for dead"),
        (now.version, 0, "was taken for dead"),
    ]:
        with pytest.raises(StaleWriter, match=said):
            swap_head(published.store, expected, replace(now, fence=fence))
        assert published.head() == now


def test_a_writer_that_was_taken_over_cant_publish(published):
    published.file("s3", name="three")
    stale, now = opened(published), published.head()
    fresh = published.batches.take_over(stale)
    with pytest.raises(StaleWriter, match="taken over by another writer"):
        publish(published.batches, stale, published.store, published.staged)
    assert published.head() == now
    assert publish(published.batches, fresh, published.store, published.staged).requests[-1] == "three"


def test_a_candidate_that_takes_deletions_back_is_refused(published):
    now, pointer = published.head(), published.journal.pointer()
    published.file("s3")
    batch = opened(published)
    published.stage(pointer=replace(pointer, count=1, sha256=prefix_sha(published, 1)))
    with pytest.raises(SpecMismatch, match="leaves out 1 requests that HEAD has applied, and nothing was published"):
        publish(published.batches, batch, published.store, published.staged)
    assert published.head() == now


def prefix_sha(project, count):
    from amnesiac.requests.chain import point

    return point(project.journal.salt(), project.journal.requests(count)).sha256


def test_altered_candidates_are_refused(published):
    published.file("s3")
    batch, path = opened(published), published.staged / MODEL
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedStore, match="altered after it was staged"):
        publish(published.batches, batch, published.store, published.staged)
    (published.staged / "version.json").write_text("{}")
    with pytest.raises(DamagedStore, match=r"version\.json lacks .*run_id"):
        publish(published.batches, batch, published.store, published.staged)


# Rollback


def test_the_predecessor_can_be_published_again(published):
    second = published.head()
    first = published.store.read(second.predecessor)
    back = roll_back(published.batches, published.store)
    assert (back.version, back.requests, back.predecessor, back.batch) == (first.id, ("one",), None, 1)
    assert back.fence > second.fence
    assert [request.request_id for request in published.pending()] == ["two"]
    assert [batch.ended for batch in published.batches.history()] == [None, "rolled back"]
    with pytest.raises(InputError, match="or only the first, was published"):
        roll_back(published.batches, published.store)
    assert published.run().version == second.version, "the next batch takes them up, to the same bits"
    assert published.head().batch == 3


def test_no_rollback_once_keys_are_destroyed(published):
    batches, now = replace(published, last="RECEIPTED").batches, published.head()
    batches.advance(batches.history()[-1], "KEYS_DESTROYED")
    with pytest.raises(BatchConflict, match=r"the erasure of deletion batch 2 has begun \(KEYS_DESTROYED\)"):
        roll_back(published.batches, published.store)
    assert published.head() == now


def test_a_rollback_that_was_killed_after_the_swap_is_finished(published):
    before = published.root.parent / "before"
    published.copy(before)
    head = roll_back(published.batches, published.store)
    journal = before / "journal/deletions.sqlite"
    published.journal.path.write_bytes(journal.read_bytes())  # as if the journal's transaction had been lost
    assert published.batches.history()[-1].ended is None
    assert recover(published.batches, published.store).action == "nothing"
    assert published.batches.history()[-1].ended == "rolled back"
    assert published.head() == head


def test_nothing_to_roll_back(project):
    with pytest.raises(InputError, match="nothing can be rolled back"):
        roll_back(project.batches, project.store)


# Recovery and concurrency


def test_before_the_swap_recovery_goes_back_and_sweeps(published):
    published.file("s3")
    opened(published)
    orphan = published.store.write(published.staged).id
    (published.store.folder / ".HEAD.json.7.partial").write_text("{")
    found = recover(published.batches, published.store)
    assert (found.action, found.batch.ended) == ("rolled back", "abandoned")
    assert found.swept == ("HEAD.json", orphan)
    assert len(published.store.ids()) == 2
    assert len(published.pending()) == 1
    assert recover(published.batches, published.store).action == "nothing"


def test_later_states_go_on_after_a_crash(published):
    batches = replace(published, last="RECEIPTED").batches
    found = recover(batches, published.store)
    assert (found.action, found.batch.number, found.batch.state) == ("goes on", 1, "PUBLISHED")


def test_a_request_filed_while_a_batch_is_under_way_goes_into_the_next(published):
    published.file("s3", name="three")
    batch = opened(published)
    published.file("s4", name="four")
    head = publish(published.batches, batch, published.store, published.staged)
    assert head.requests == ("one", "two", "three")
    assert [request.request_id for request in published.pending()] == ["four"]
    assert published.run().requests[-1] == "four"


def test_filing_in_another_process_while_batches_are_published(published):
    program = (
        "import sys; from pathlib import Path; from tests.publication.tiny import Tiny\n"
        "for k in range(3, 23): Tiny(Path(sys.argv[1])).file(f's{k}', name=f'n{k}')"
    )
    filing = subprocess.Popen([sys.executable, "-c", program, str(published.root)], cwd=ROOT)
    while filing.poll() is None:
        published.run()
    assert filing.returncode == 0
    published.run()
    assert set(published.head().requests) == {"one", "two", *(f"n{k}" for k in range(3, 23))}
    assert published.store.read(published.head().version).positions() == tuple(range(1, 23))
    one = published.copy(published.root.parent / "at-once")
    (one.store.folder / "HEAD.json").unlink()
    one.journal.path.unlink()
    one.file(*(f"s{k}" for k in range(1, 23)))
    one.run()
    assert one.weights() == published.weights()


def test_of_many_swaps_from_one_head_one_succeeds(published):
    now, results, start = published.head(), [], threading.Barrier(8)

    def swap(fence):
        start.wait()
        try:
            swap_head(
                VersionStore(published.store.folder), now.version, replace(now, version=now.predecessor, fence=fence)
            )
            results.append("swapped")
        except StaleWriter:
            results.append("stale")

    threads = [threading.Thread(target=swap, args=(100 + k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["stale"] * 7 + ["swapped"]


def test_versions_are_removed_and_ids_listed(published):
    first = published.head().predecessor
    published.store.remove(first)
    published.store.remove(first)
    assert published.store.ids() == (published.head().version,)
    with pytest.raises(SpecMismatch, match="isn't in"):
        roll_back(published.batches, published.store)
