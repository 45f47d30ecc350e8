"""Old states come back: from DVC's cache, and from nothing but git and the journal."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.conftest import Cycled
from tests.pipeline.project import Done, Project, file, finish


@dataclass(frozen=True)
class Repeated:
    """Three projects after their commands (run side by side, to save time).

    continued:  a second batch after the first, committed as `commit`
    cloned:     git's files of the first batch; `refused`: `dvc repro` without the journal, then it ran with it
    serverless: other repair settings, `dvc repro` with no server running
    """

    continued: Project
    commit: str
    cloned: Project
    refused: Done
    serverless: Project
    trained_at: int


@pytest.fixture(scope="module")
def repeated(cycled: Cycled, tmp_path_factory: pytest.TempPathFactory) -> Repeated:
    folder, server = tmp_path_factory.mktemp("repeated"), cycled.project.server
    continued = cycled.project.copy(folder / "continued", server)
    cloned = clone(cycled, folder / "cloned")
    serverless = cycled.project.copy(folder / "serverless")
    serverless.edit("repair: {epochs: 0.5}", "repair: {epochs: 0.25}")
    trained_at = (serverless.data / "model/model.safetensors").stat().st_mtime_ns
    file(continued, "--random", "4", "--seed", "1")
    refused, _ = finish(
        cloned.dvc("repro", code=255),
        serverless.dvc("repro"),
    )
    assert not (cloned.data / "unlearned").exists()
    # with a later request in it, which must not be applied at the older commit
    shutil.copytree(continued.data / "journal", cloned.data / "journal")
    finish(continued.amnesiac("publish"), cloned.dvc("repro"))
    return Repeated(continued, continued.commit("second batch"), cloned, refused, serverless, trained_at)


def clone(cycled: Cycled, folder: Path) -> Project:
    """What another machine gets: git's files only, neither data, models, cache nor journal."""
    cycled.project.git("clone", "--quiet", str(cycled.project.root), str(folder))
    cloned = Project(folder, cycled.project.server)
    cloned.git("checkout", "--quiet", cycled.commit)
    return cloned


def recorded(project: Project) -> dict[str, Any]:
    """The stages of dvc.lock."""
    stages: dict[str, Any] = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]
    return stages


def test_last_weeks_weights_come_back_from_the_cache(cycled: Cycled, repeated: Repeated) -> None:
    project, then, now = repeated.continued, cycled.project.weights(), repeated.continued.weights()
    assert len(project.version()["requests"]) == 3
    assert now["unlearned/model.safetensors"] != then["unlearned/model.safetensors"]
    assert now["model/model.safetensors"] == then["model/model.safetensors"]

    project.git("checkout", "--quiet", cycled.commit)
    finish(project.dvc("checkout", "--quiet"))
    assert project.weights() == then
    assert project.version() == cycled.project.version()
    [status] = finish(project.dvc("status", "--json"))
    assert status.json() == {}

    project.git("checkout", "--quiet", repeated.commit)
    finish(project.dvc("checkout", "--quiet"))
    assert project.weights() == {name: digest for name, digest in now.items() if name in project.weights()}
    assert len(project.version()["requests"]) == 3


def test_an_older_version_is_computed_again_and_head_stays(cycled: Cycled, repeated: Repeated) -> None:
    """HEAD has applied three requests; the old commit's pointer names two."""
    project = repeated.continued
    published = (project.data / "published/HEAD.json").read_bytes()
    assert len(json.loads(published)["head"]["requests"]) == 3
    project.git("checkout", "--quiet", cycled.commit)
    finish(project.dvc("repro", "--single-item", "--force", "unlearn"))
    mine, theirs = project.weights(), cycled.project.weights()
    assert {name: mine[name] for name in mine if name.startswith("unlearned")} == {
        name: theirs[name] for name in theirs if name.startswith("unlearned")
    }
    assert project.version() == cycled.project.version()
    assert (project.data / "published/HEAD.json").read_bytes() == published
    project.git("checkout", "--quiet", "--force", repeated.commit)
    finish(project.dvc("checkout", "--quiet", "--force"))


def test_from_nothing_but_git_and_the_journal_the_same_bits_arise(cycled: Cycled, repeated: Repeated) -> None:
    cloned = repeated.cloned
    assert cloned.weights() == cycled.project.weights()
    said, first = cloned.version(), cycled.project.version()
    assert said.pop("ledger_roots") != first.pop("ledger_roots")  # encrypted with the keys of another store
    assert said == first
    assert cloned.git("diff", "--name-only") in ("", "dvc.lock"), "the pointer stays where it was"
    samples = [json.loads((p.data / "metrics.json").read_text())["samples"] for p in (cloned, cycled.project)]
    assert samples[0] == samples[1]


def test_without_the_journal_nothing_is_forgotten_in_silence(repeated: Repeated) -> None:
    assert "holds 0 requests, and the first 2 were asked for: restore the journal from a backup" in repeated.refused.err


def test_without_a_server_only_what_changed_is_run(cycled: Cycled, repeated: Repeated) -> None:
    project, before, after = repeated.serverless, recorded(cycled.project), recorded(repeated.serverless)
    assert {name for name in after if after[name] != before[name]} == {"unlearn", "evaluate"}
    assert (project.data / "model/model.safetensors").stat().st_mtime_ns == repeated.trained_at
    weights, old = project.weights(), cycled.project.weights()
    assert {name for name in weights if weights[name] != old[name]} == {"unlearned/repaired.safetensors"}
    [again] = finish(project.dvc("repro"))
    assert "up to date" in again.out
    assert recorded(project) == after
