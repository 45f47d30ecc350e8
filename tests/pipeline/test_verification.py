"""Settled deltas through the command line, and `amnesiac verify` on what they leave: before, after, damaged."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tests.pipeline.project import Done, Project, create, finish

SETTLED = {
    "capture: {methods: [per-sample-delta]}": "capture: {methods: [settled], curvature: {smallest_sample: 32}}",
    "method: per-sample-delta, repair: {epochs: 0.5}": "method: settled",
    "limit: 300": "limit: 100",
}
N = 80  # training samples: a fifth of 100 is for tests


@dataclass(frozen=True)
class Verified:
    """A project in which a person and a class were deleted, and what `amnesiac verify` says of it and a damaged one."""

    project: Project
    whole: Done
    damaged: Done


@pytest.fixture(scope="module")
def verified(started: Project, tmp_path_factory: pytest.TempPathFactory) -> Verified:
    folder = tmp_path_factory.mktemp("settled")
    project = replace(create(folder / "project"), server=started.server)
    for old, new in SETTLED.items():
        project.edit(old, new)
    finish(project.amnesiac("cycle", "--random-people", "1", "--forget-class", "3"))
    damaged = without(project, folder / "damaged", "unlearned/correction.safetensors")
    damage_rows(damaged)
    return Verified(project, *finish(project.amnesiac("verify", "--json"), damaged.amnesiac("verify", code=1)))


def without(project: Project, root: Path, *names: str) -> Project:
    """A copy that lacks these files and folders of pipeline_data."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns(".prefect", ".dvc", ".git"))
    for path in (root / "pipeline_data" / name for name in names):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return replace(project, root=root)


def run(project: Project, *words: str) -> Result:
    """The command in this process, which has imported everything already."""
    return CliRunner().invoke(app, words, env={"AMNESIAC_PROJECT": str(project.root)})


def damage_rows(project: Project) -> None:
    """Flip a bit in every row."""
    array = project.data / "ledger/rows.zarr/settled"
    [shard] = [path for path in (array / "c").rglob("*") if path.is_file()]
    n_rows, row_bytes = json.loads((array / "zarr.json").read_text())["shape"]
    content = bytearray(shard.read_bytes())
    for row in range(n_rows):
        content[row * row_bytes + 9] ^= 1
    shard.write_bytes(content)


def test_after_a_sample_and_a_class_were_deleted(verified: Verified) -> None:
    found, version = verified.whole.json(), verified.project.version()
    assert (found["identical"], found["problems"], found["largest_difference"]) == (True, [], 0.0)
    assert found["forgotten"] == version["samples"] >= N / 10
    assert found["weights"] == str(verified.project.data / "unlearned/model.safetensors")
    assert found["surviving"] == found["read"] == N - version["samples"]
    assert version["correction_sha256"], "a whole class takes other rows than those that the base adds up"


def test_before_any_deletion_the_trained_model_is_verified(verified: Verified, tmp_path: Path) -> None:
    said = run(without(verified.project, tmp_path / "undeleted", "unlearned"), "verify")
    assert said.exit_code == 0
    counts = f"0 samples deleted, {N} left, {N} of their rows read"
    assert f"model/model.safetensors is base minus surviving rows, bit for bit ({counts})" in said.output


@pytest.mark.parametrize("name", ["model", "ledger"])
def test_with_nothing_there_it_says_what_to_run(verified: Verified, tmp_path: Path, name: str) -> None:
    project = without(verified.project, tmp_path / "nothing", name)
    said = run(project, "verify")
    assert said.exit_code == 2
    assert f"nothing to verify yet: {project.data / name} doesn't exist. Run `amnesiac train`" in said.output


def test_damage_is_named(verified: Verified) -> None:
    lines = [line for line in verified.damaged.out.splitlines() if line.startswith("- ")]
    assert sum("rows.zarr: row " in line and "is damaged" in line for line in lines) == 20
    assert any("unlearned/correction.safetensors is missing" in line for line in lines)
    assert "22 things are wrong" in verified.damaged.out


def test_without_the_journal_nobody_knows_which_samples_were_deleted(verified: Verified, tmp_path: Path) -> None:
    said = run(without(verified.project, tmp_path / "lost", "journal"), "verify", "--json")
    assert said.exit_code == 1
    [problem] = json.loads(said.output)["problems"]
    assert "restore the journal from a backup" in problem


def test_what_the_published_version_must_say(verified: Verified, tmp_path: Path) -> None:
    project = without(verified.project, tmp_path / "altered")
    version, path = project.version(), project.data / "unlearned/version.json"
    path.write_text(json.dumps(version | {"method": "per-sample-delta"}))
    said = run(project, "verify")
    assert (said.exit_code, "made by 'per-sample-delta'" in said.output) == (2, True)
    del version["run_id"]
    path.write_text(json.dumps(version))
    said = run(project, "verify")
    assert (said.exit_code, "version.json lacks run_id: run `amnesiac unlearn" in said.output) == (1, True)
    path.unlink()
    assert "version.json can't be read" in run(project, "verify").output
