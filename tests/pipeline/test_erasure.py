"""Erasure through the command line: nothing of the erased is left, what comes after works, kills end in one receipt."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tasks.clearing
from amnesiac.data import open_dataset
from amnesiac.erasure import Tombstones
from amnesiac.errors import StoreError
from amnesiac.keys import LocalKeyStore, sample_name
from amnesiac.receipts import Chain, verify_chain
from amnesiac.requests import Batches, Journal
from flows.cli import app
from tasks.restoring import Restored, file_restored
from tasks.trials import TrialPlan, plan_trials, try_deletion
from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Project, create, finish, run
from tests.pipeline.test_verification import SETTLED

STATES = ["RECEIVED", "PLANNED", "STAGED", "EVALUATED", "PUBLISHED", "KEYS_DESTROYED", "PURGED", "SCANNED", "RECEIPTED"]


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Erasures:
    """A project in which a person and a class were erased, then a sample more; a copy in which nobody was; and a
    backup, of when it was trained.

    plain: bytes that must be found nowhere;  original: the trained model's file
    """

    project: Project
    kept: Project
    old: Project
    remote: Path
    plain: tuple[bytes, ...]
    original: bytes
    second: str


def told(project: Project, *words: str) -> Any:
    said = run(project, *words, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def samples_of(project: Project) -> tuple[list[str], list[str], list[bytes]]:
    """Ids of class 3 in all splits, of the other training samples, and the former's images as bytes."""
    data = open_dataset(project.data / "prepared", LocalKeyStore(project.data / "keys"))
    rows = np.flatnonzero(data.index["class_name"] == "3")
    others = data.index[(data.index["split"] == "train") & (data.index["class_name"] != "3")]
    images = [row.tobytes() for row in data.reader.read(rows)]
    return data.index["sample_id"].iloc[rows].tolist(), others["sample_id"].tolist(), images


@pytest.fixture(scope="module")
def erasures(started: Project, tmp_path_factory: pytest.TempPathFactory) -> Erasures:
    folder = tmp_path_factory.mktemp("erasures")
    project, remote = replace(create(folder / "project"), server=started.server), folder / "remote"
    for old, new in SETTLED.items():
        project.edit(old, new)
    finish(project.dvc("remote", "add", "--quiet", "--default", "away", str(remote)))
    finish(project.amnesiac("cycle"))  # trained; nobody asks for anything, so nothing is withdrawn
    assert (project.data / "model/model.safetensors").exists()
    finish(project.dvc("push", "--quiet"))
    project.commit("trained")
    old = replace(project, root=folder / "old")
    shutil.copytree(project.root, old.root, ignore=shutil.ignore_patterns(".prefect"))
    gone, others, images = samples_of(project)
    for words in (("--class", "3", "--id", "class"), ("--subject", others[0], "--id", "person")):
        assert run(project, "request", "add", *words).exit_code == 0
    kept = replace(project, root=folder / "kept")
    shutil.copytree(project.root, kept.root, ignore=shutil.ignore_patterns(".prefect"))
    original = (project.data / "model/model.safetensors").read_bytes()
    (project.data / "ensembles").mkdir()
    (project.data / "ensembles/captured-of-an-audit.safetensors").write_bytes(original)
    project.edit("grace_days: 9", "grace_days: 0")
    finish(project.amnesiac("publish"), kept.amnesiac("publish", "--no-evaluate"))
    for each in (project, kept):
        assert run(each, "request", "add", "--sample", others[1], "--id", "second").exit_code == 0
    finish(project.amnesiac("publish"), kept.amnesiac("publish", "--no-evaluate"))
    ids = [name.encode() for name in (*gone, *others[:2])]
    return Erasures(project, kept, old, remote, (*ids, *images), original, others[1])


def files(*places: Path) -> Iterator[Path]:
    return (path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def head(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.data / "published/HEAD.json").read_text())["head"]
    return found


def test_a_batch_reaches_its_receipts(erasures: Erasures) -> None:
    project = erasures.project
    *_, first, second = Batches(Journal(project.data / "journal")).history()
    assert [event.state for event in first.events] == STATES
    assert [event.state for event in second.events] == STATES
    found = told(project, "status")
    assert (found["requests"], found["unfinished"], found["resting"]) == ({"RECEIPTED": 3}, None, [])
    assert verify_chain(project.data / "receipts").problems == ()
    receipts = [one.signed.receipt for one in Chain(project.data / "receipts").receipts()]
    assert [one.request.id for one in receipts] == ["class", "person", "second"]
    assert [one.rows_left for one in receipts][1] - 1 == receipts[2].rows_left
    assert receipts[0].model.before != receipts[0].model.after == receipts[2].model.before
    assert receipts[0].verdict and receipts[0].metrics["kl_test"] is not None
    assert all(one.scan.hits == 0 and one.scan.files > 50 for one in receipts)
    verified = told(project, "verify")
    assert (verified["identical"], verified["problems"]) == (True, [])
    assert verified["forgotten"] + verified["surviving"] == 80


def test_each_batch_keeps_its_report_without_pictures_and_only_the_last_references_stay(erasures: Erasures) -> None:
    project = erasures.project
    *_, first, second = Batches(Journal(project.data / "journal")).history()
    forgotten = []
    for batch, receipts in ((first, {1, 2}), (second, {3})):
        folder = project.data / "reports" / f"batch-{batch.number:06d}"
        assert {path.name for path in folder.iterdir()} == {"report.html", "report.md", "report.json"}
        record = json.loads((folder / "report.json").read_text())
        facts = record["facts"]["batch"]
        assert list(facts["states"]) == STATES
        assert {one["receipt"] for one in facts["asked"]} == receipts
        assert facts["erased"]["keys"] >= len(batch.request_ids) and facts["scan"]["hits"] == 0
        assert "<image" not in (folder / "report.html").read_text(), "no picture of anybody"
        forgotten.append(record["metrics"]["samples"]["forget"])
    assert forgotten[0] > forgotten[1] == 1, "each is of its own time: who is erased can't be measured on any more"
    assert "Measured on 1 of them" in (project.data / "reports/batch-000003/report.md").read_text()
    assert len(list((project.data / "retrained").iterdir())) == 2, "the reference, and that of another seed"


def test_nothing_of_the_erased_is_left(erasures: Erasures) -> None:
    kept = b"".join(path.read_bytes() for path in files(erasures.kept.data / "journal"))
    assert erasures.second.encode() in kept, "or nothing could be found"
    for path in files(erasures.project.root, erasures.remote):
        content = path.read_bytes()
        assert not [one for one in erasures.plain if one in content], path
        assert erasures.original not in content, path
    assert not (erasures.project.data / "evaluation/examples.png").exists()
    assert not list((erasures.project.data / "ensembles").iterdir()), "members of audits know the erased by position"
    [version] = (erasures.project.data / "published/versions").iterdir()
    assert version.name == head(erasures.project)["version"]
    assert [*files(erasures.remote)], "what dvc.lock names stays there"


def test_the_next_batch_has_the_bits_that_it_has_without_erasure(erasures: Erasures) -> None:
    ours, theirs = (
        (p.data / "published/versions" / head(p)["version"] / "model.safetensors").read_bytes()
        for p in (erasures.project, erasures.kept)
    )
    assert ours == theirs
    metrics = json.loads((erasures.project.data / "metrics.json").read_text())
    assert metrics["samples"]["forget"] == 1, "whoever was erased before can't be measured"
    assert metrics["original"]["kl_test"] >= 0.0, "of the version that was published before"


def test_trials_go_on_from_what_is_published_once_the_trained_model_is_withdrawn(
    erasures: Erasures, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for project in (erasures.project, erasures.kept):
        monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
        [trial] = plan_trials.fn(TrialPlan(random=1, share=0.1))
        rows.append(try_deletion.fn(trial))
    ours, theirs = ({name: row[name] for name in row if "forget" in name} for row in rows)  # test samples were erased
    assert rows[0]["samples"] == 8 and ours["kl_forget_unlearned"] > 0
    assert ours == theirs, "nobody who was forgotten is drawn, whether erased or not"


def restored(erasures: Erasures, root: Path) -> Project:
    """The old backup, with what was kept apart from it over it."""
    shutil.copytree(erasures.old.root, root)
    for name in ("journal", "receipts", "signing"):
        shutil.rmtree(root / "pipeline_data" / name, ignore_errors=True)
        shutil.copytree(erasures.project.data / name, root / "pipeline_data" / name)
    return replace(erasures.old, root=root)


def test_a_backup_that_is_restored_doesnt_bring_the_erased_back(
    erasures: Erasures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = restored(erasures, tmp_path / "restored")
    gone = samples_of(project)[0]
    assert gone, "they can be read again"
    [said] = finish(project.amnesiac("publish", "--no-evaluate", code=1))
    assert re.search(r"samples of this data were erased, and their keys are there again.*amnesiac restore", said.err)
    seen = run(project, "verify", "--json")
    assert seen.exit_code == 1 and "samples that were erased can be read again: run `amnesiac restore`" in seen.stdout
    [done] = finish(project.amnesiac("restore", "--no-evaluate", "--json"))
    found = done.json()
    assert (found["samples"], found["request_id"], found["missing"]) == (len(gone) + 2, "restored-1", 3)
    alive = LocalKeyStore(project.data / "keys").find([sample_name(name) for name in gone])
    assert (alive < 0).all()
    for path in files(project.root):
        if ".dvc" not in path.parts[:-1] and path.name != "config.local":
            content = path.read_bytes()
            assert not [one for one in erasures.plain if one in content], path
    ours, theirs = (
        (p.data / "published/versions" / head(p)["version"] / "model.safetensors").read_bytes()
        for p in (project, erasures.project)
    )
    assert ours == theirs, "the version without them, bit for bit"
    names = [one.signed.receipt.request.id for one in Chain(project.data / "receipts").receipts()]
    assert names == ["class", "person", "second", "restored-1"]
    verified = told(project, "verify")
    assert (verified["identical"], verified["problems"]) == (True, [])
    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    assert file_restored() == Restored(0, None, 0), "nobody is back any more"


def test_a_restore_without_what_was_kept_apart_is_refused(
    erasures: Erasures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = restored(erasures, tmp_path / "restored")
    receipts, tombstones = project.data / "receipts", project.data / "journal/tombstones.txt"
    aside = receipts.rename(tmp_path / "receipts")
    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    with pytest.raises(StoreError, match="3 requests were carried out and have no receipt in .*the first 'class'"):
        file_restored()
    aside.rename(receipts)
    tombstones.unlink()
    with pytest.raises(StoreError, match=r"tombstones\.txt names nobody: restore it"):
        file_restored()


def test_dvc_has_nothing_to_do_and_a_known_request_returns_its_receipt(erasures: Erasures) -> None:
    project = erasures.project
    status, repro = finish(project.dvc("status", "--json"), project.dvc("repro"))
    assert (status.json(), "up to date" in repro.out) == ({}, True)
    again = told(project, "request", "add", "--sample", erasures.second, "--id", "second")
    assert (again["filed"], again["already"]) == ([], ["second"])
    assert (again["known"][0]["state"], Path(again["known"][0]["receipt"]).name) == ("RECEIPTED", "00000003.json")
    refused = run(project, "rollback")
    assert (refused.exit_code, "the erasure of deletion batch 3 has begun" in refused.output) == (1, True)


def test_an_old_commit_says_why_it_cant_be_computed_again(erasures: Erasures, tmp_path: Path) -> None:
    project = replace(erasures.project, root=tmp_path / "old")
    shutil.copytree(erasures.project.root, project.root, ignore=shutil.ignore_patterns(".prefect"))
    project.git("checkout", "--quiet", "--force", "HEAD", "--", ".")
    [said] = finish(project.dvc("repro", code=255))
    assert re.search(r"samples to train on were erased.*keys were destroyed", said.err)


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, where: object, name: str, on: Callable[..., bool]) -> Iterator[None]:
    """A call of `where.name` for which `on` is true ends the process."""
    real = getattr(where, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if on(*args):
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, call)
        yield


def to_state(state: str) -> Callable[..., bool]:
    return lambda _, batch, to, *rest: to == state


def test_killed_at_any_state_there_is_one_receipt_a_request(
    cycled: Cycled, copied: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, calls = copied("killed"), iter(range(9))
    [resting] = told(project, "status")["resting"]
    assert "it can be rolled back until" in resting["why"]
    published = head(project)["version"]
    project.edit("grace_days: 9", "grace_days: 0")
    points: list[tuple[object, str, Callable[..., bool]]] = [
        (Tombstones, "add", lambda *_: True),
        (Batches, "advance", to_state("KEYS_DESTROYED")),
        (tasks.clearing, "rewrite_report", lambda *_: True),
        (Batches, "advance", to_state("PURGED")),
        (Batches, "advance", to_state("SCANNED")),
        (Chain, "append", lambda *_: next(calls) == 1),
        (Batches, "advance", to_state("RECEIPTED")),
        (Journal, "redact", lambda *_: True),
    ]
    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    for where, name, on in points:
        with dying(monkeypatch, where, name, on), pytest.raises(Killed):
            CliRunner().invoke(app, ("recover",), catch_exceptions=False)
        assert head(project)["version"] == published
    told(project, "recover")
    receipts = Chain(project.data / "receipts").receipts()
    assert len({one.signed.receipt.request.id for one in receipts}) == len(receipts) == 2
    assert verify_chain(project.data / "receipts").problems == ()
    assert all(request.redacted for request in Journal(project.data / "journal").requests())
    assert b"mnist-5k-" not in b"".join(path.read_bytes() for path in files(project.data / "journal"))
    assert finish(project.dvc("status", "--json"))[0].json() == {}
    assert not (project.data / "model/model.safetensors").exists()


def test_a_residue_stops_the_batch_until_it_is_gone(
    cycled: Cycled, copied: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, rows and keys, also by a process that never saw them: the one that destroyed the keys was killed."""
    project = copied("residue")
    gone, _, images = samples_of(project)
    store = LocalKeyStore(project.data / "keys")
    [key] = store.keys(store.find([sample_name(gone[0])]))
    project.edit("grace_days: 9", "grace_days: 0")
    planted = {
        "notes.txt": f"to be forgotten: {gone[0]}\n".encode(), "core": b"1" + key.tobytes(),
        "trace": b"key=" + key.tobytes().hex().encode(), "cache": bytes(77) + images[0] + b"more",
    }  # fmt: skip
    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    with dying(monkeypatch, Batches, "advance", to_state("PURGED")), pytest.raises(Killed):
        CliRunner().invoke(app, ("recover",), catch_exceptions=False)
    held = b"".join(path.read_bytes() for path in files(project.data / "journal"))
    assert gone[0].encode() in held and not any(one in held for one in (images[0], key.tobytes(), planted["trace"][4:]))
    for name, content in planted.items():
        (project.data / "timings" / name).write_bytes(content)
    said = run(project, "recover")
    assert said.exit_code == 1
    assert "4 of" in said.output and gone[0] not in said.output
    assert all(str(project.data / "timings" / name) in said.output.replace("\n", "") for name in planted)
    assert told(project, "status")["unfinished"]["state"] == "PURGED"
    for name in planted:
        (project.data / "timings" / name).unlink()
    assert told(project, "recover")["finished"] == [1]
    assert told(project, "status")["requests"] == {"RECEIPTED": 2}
    kinds = Chain(project.data / "receipts").receipts()[0].signed.receipt.scan.kinds
    assert set(kinds) == {"ids", "image rows", "ledger rows", "keys"} and all(kinds.values())
