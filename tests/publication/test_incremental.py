"""Each batch goes on from HEAD and reads only its own rows; together they are one batch of all, bit for bit."""

import shutil

import pytest

from amnesiac.errors import RequestError
from amnesiac.ledger.sealed import SealedLedger
from amnesiac.models import load_weights
from amnesiac.publication import Subtraction, groups_of, subtract
from amnesiac.requests import ForgetSet
from amnesiac.unlearning import METHODS
from amnesiac.verification import Version, verify
from tests.publication.tiny import MODEL, N, bits

TEN = [("s1",), ("s2", "s1"), ("s5",), ("s30", "s31"), ("s7",), ("s9",), ("s11",), ("s12", "s40"), ("s13",), ("s47",)]


@pytest.fixture(params=METHODS)
def of_method(request, train_method, tmp_path):
    return train_method(request.param).copy(tmp_path / "project")


def test_ten_batches_are_one_batch_bit_for_bit(of_method):
    at_once = of_method.copy(of_method.root.parent / "at-once")
    for ids in TEN:
        of_method.file(*ids)
        of_method.run()
    for ids in TEN:
        at_once.file(*ids)
    at_once.run()
    ten, one = (p.store.read(p.head().version) for p in (of_method, at_once))
    assert bits(ten.weights()) == bits(one.weights())
    assert bits(ten.master()) == bits(one.master())
    assert ten.positions() == one.positions()
    assert bits(ten.weights()) != bits(load_weights(of_method.root / MODEL))
    assert (ten.facts["groups"], one.facts["groups"]) == (list(range(1, 11)), [10])
    assert ten.facts["rows"] == one.facts["rows"]


def test_only_new_rows_are_read(project, monkeypatch):
    read, real = [], SealedLedger._read

    def note(self, reader, name, rows):
        read.append((name, rows.tolist()))
        return real(self, reader, name, rows)

    monkeypatch.setattr(SealedLedger, "_read", note)
    project.file("s1", "s2", "s5")
    project.run()
    assert read == [("settled", [1, 2, 5])]
    read.clear()
    project.file("s5", "s9", "s12")
    project.run()
    assert read == [("settled", [9, 12])]
    read.clear()
    project.stage()
    assert read == [], "what is published already isn't read again"


def identity(project):
    version = project.store.read(project.head().version)
    correction = version.folder / "correction.safetensors"
    said = Version(
        version.subtracted, version.positions(), (), version.facts["run_id"], version.facts["weights_sha256"],
        correction if correction.exists() else None, version.facts["correction_sha256"],
    )  # fmt: skip
    return verify(project.root / "ledger", project.root / MODEL, said)


def test_corrections_of_several_batches_add_up_to_the_identity(project):
    """Two classes go, each in two batches: their corrections differ, and the verifier needs the sum of them."""
    of = {label: [f"s{k}" for k in range(label, N, 3)] for label in (0, 1)}
    for ids in (of[0][:4], of[0][4:], of[1][:9], of[1][9:], ["s2"]):
        project.file(*ids)
        project.run()
        found = identity(project)
        assert (found.identical, found.problems) == (True, ())
    version = project.store.read(project.head().version)
    assert version.correction() is not None
    assert found.forgotten == 33


def test_an_old_state_comes_back_in_the_groups_that_it_was_published_in(project):
    """A class that goes in two batches isn't what it is in one (settled.py), so the groups matter."""
    ids = [f"s{k}" for k in range(0, N, 3)]
    project.file(*ids[:6])
    project.run()
    project.file(*ids[6:])
    project.run()
    then, pointer = project.weights(), project.journal.pointer()
    project.file("s1")
    later = project.run()
    project.stage(pointer=pointer)
    assert bits(load_weights(project.staged / MODEL)) == then
    assert project.head() == later, "staging publishes nothing"
    other = project.copy(project.root.parent / "other")
    wanted = {"run_id": "another", "method": "settled", "scale": "lr", "pointer": {}}
    assert groups_of(other.batches, wanted, 2) == (2,)
    assert groups_of(other.batches, wanted, 0) == ()
    for path in other.journal.path.parent.iterdir():
        path.unlink()
    other.file(*ids[:6])
    other.file(*ids[6:])
    (other.store.folder / "HEAD.json").unlink()
    other.stage()
    assert bits(load_weights(other.staged / MODEL)) != then


def test_not_everything_can_go(project):
    weights, rows = load_weights(project.root / MODEL), tuple(range(N - 2))
    done = subtract(project.settings, project.ledger, weights, Subtraction(), [ForgetSet(rows, (), 1, {"a": 1}, 0)])
    with pytest.raises(RequestError, match="name every training sample"):
        subtract(project.settings, project.ledger, weights, done, [ForgetSet((N - 2, N - 1), (), 1, {"b": 1}, 0)])


def test_nothing_deleted_is_the_trained_model(project):
    project.stage()
    weights = load_weights(project.root / MODEL)
    assert bits(load_weights(project.staged / MODEL)) == bits(weights)


def test_after_training_anew_all_requests_are_applied_to_the_new_run(project, train_method):
    project.file("s1", "s2")
    old = project.run()
    other = train_method("settled", seed=5)
    for name in ("ledger", MODEL):
        path = project.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (other.root / name).rename(path)
    project.file("s3")
    new = project.run()
    version = project.store.read(new.version)
    assert (new.predecessor, new.run_id != old.run_id) == (old.version, True)
    assert version.positions() == (1, 2, 3)
    assert identity(project).problems == ()
    assert [batch.request_ids for batch in project.batches.history()] == [old.requests, new.requests[1:]]
