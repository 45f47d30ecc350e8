"""Settled deltas through the command line: what is published where they are flagged, and `amnesiac verify` on what they
leave: before, after, damaged.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from amnesiac.hashing import hash_json
from amnesiac.models import load_weights
from tests.pipeline.project import Done, Project, create, finish, run

N = 80  # training samples: a fifth of 100 is for tests
ACTS = {  # with limits that every deletion is beyond
    "report": "act: report, repair_above: 1.0e-9, retrain_above: 1.0e+9, drift_budget: 1.0e+9",
    "repair": "act: repair, repair_above: 1.0e-9, retrain_above: 1.0e+9, drift_budget: 1.0e+9",
    "retrain": "act: retrain, repair_above: 1.0e-9, retrain_above: 2.0e-9, drift_budget: 1.0e+9",
}
SETTLED = {
    "capture: {methods: [per-sample-delta]}": "capture: {methods: [settled], curvature: {smallest_sample: 32}}",
    "method: per-sample-delta, repair: {epochs: 0.5}": f"method: settled, confidence: {{{ACTS['report']}}}",
    "limit: 300": "limit: 100",
}


@dataclass(frozen=True)
class Verified:
    """A project in which a person and a class were deleted (what that printed), and what `amnesiac verify` says of it
    and of a damaged one.
    """

    project: Project
    printed: Done
    whole: Done
    damaged: Done


@pytest.fixture(scope="module")
def verified(started: Project, tmp_path_factory: pytest.TempPathFactory) -> Verified:
    folder = tmp_path_factory.mktemp("settled")
    project = replace(create(folder / "project"), server=started.server)
    for old, new in SETTLED.items():
        project.edit(old, new)
    [printed] = finish(project.amnesiac("cycle", "--random-people", "1", "--forget-class", "3"))
    damaged = without(project, folder / "damaged", f"{of_head(project)}/correction.safetensors")
    damage_rows(damaged)
    return Verified(project, printed, *finish(project.amnesiac("verify", "--json"), damaged.amnesiac("verify", code=1)))


@pytest.fixture(scope="module")
def acted(verified: Verified, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Project, Done]]:
    """The project, and copies in which the same deletions are done again with the other ACTS; what each printed."""
    folder, copies = tmp_path_factory.mktemp("acted"), {}
    for act in ("repair", "retrain"):
        shutil.copytree(verified.project.root, folder / act, ignore=shutil.ignore_patterns(".prefect"))
        copies[act] = replace(verified.project, root=folder / act)
        copies[act].edit(ACTS["report"], ACTS[act])
    printed = finish(*(project.amnesiac("unlearn", "--json") for project in copies.values()))
    again = {act: (project, done) for (act, project), done in zip(copies.items(), printed, strict=True)}
    return again | {"report": (verified.project, verified.printed)}


def without(project: Project, root: Path, *names: str) -> Project:
    """A copy that lacks these files and folders of pipeline_data."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns(".prefect", ".dvc", ".git"))
    for path in (root / "pipeline_data" / name for name in names):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return replace(project, root=root)


def of_head(project: Project) -> str:
    """The folder of the published version, below pipeline_data."""
    head = json.loads((project.data / "published/HEAD.json").read_text())["head"]
    return f"published/versions/{head['version']}"


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
    assert found["weights"] == str(verified.project.data / of_head(verified.project) / "model.safetensors")
    assert found["surviving"] == found["read"] == N - version["samples"]
    assert version["correction_sha256"], "a whole class takes other rows than those that the base adds up"


def test_before_any_deletion_the_trained_model_is_verified(verified: Verified, tmp_path: Path) -> None:
    said = run(without(verified.project, tmp_path / "undeleted", "unlearned", "published"), "verify")
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
    assert sum("correction.safetensors is missing" in line for line in lines) == 2, "as a file, and in the identity"
    assert "23 things are wrong" in verified.damaged.out


def test_without_the_journal_nobody_knows_which_samples_were_deleted(verified: Verified, tmp_path: Path) -> None:
    said = run(without(verified.project, tmp_path / "lost", "journal"), "verify", "--json")
    assert said.exit_code == 1
    [problem] = json.loads(said.output)["problems"]
    assert "restore the journal from a backup" in problem


def test_head_ledger_and_journal_must_be_of_one_piece(verified: Verified, tmp_path: Path) -> None:
    project = without(verified.project, tmp_path / "head")
    path = project.data / "published/HEAD.json"
    whole = path.read_text()
    path.write_text(whole.replace('"batch": 1', '"batch": 2'))
    assert "HEAD.json was altered" in run(project, "verify").output.replace("\n", " ")
    for changes, problem in [
        ({"ledger_roots": {"settled": "0"}}, "doesn't say what version"),
        ({"version": "0" * 64}, "version 000000000000 isn't in"),
    ]:
        head = json.loads(whole)["head"] | changes
        path.write_text(json.dumps({"head": head, "sha256": hash_json(head)}))
        said = run(project, "verify", "--json")
        assert said.exit_code == 1
        assert problem in json.loads(said.output)["problems"][0]
    path.write_text(whole)
    (project.data / of_head(project) / "master.safetensors").write_bytes(b"")
    said = run(project, "verify", "--json")
    [problem] = json.loads(said.output)["problems"]
    assert (said.exit_code, "master.safetensors is missing or was altered" in problem) == (1, True)


def test_what_is_only_staged_is_verified_until_something_is_published(verified: Verified, tmp_path: Path) -> None:
    said = run(without(verified.project, tmp_path / "staged", "published"), "verify", "--json")
    found = json.loads(said.output)
    assert (said.exit_code, found["identical"]) == (0, True)
    assert found["weights"].endswith("unlearned/model.safetensors")


def test_what_the_staged_version_must_say(verified: Verified, tmp_path: Path) -> None:
    project = without(verified.project, tmp_path / "altered", "published")
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


@pytest.mark.parametrize(
    ("act", "verdict", "published"),
    [
        ("report", "needs_repair", "model.safetensors"),
        ("repair", "needs_repair", "repaired.safetensors"),
        ("retrain", "needs_retraining", "retrained.safetensors"),
    ],
)
def test_a_flagged_deletion_is_published_as_the_settings_say(
    acted: dict[str, tuple[Project, Done]], act: str, verdict: str, published: str
) -> None:
    project, printed = acted[act]
    version, made = project.version(), {path.name for path in (project.data / "unlearned").glob("*.safetensors")}
    assert (version["confidence"]["verdict"], version["published"]) == (verdict, published)
    assert version["confidence"]["share"] == version["samples"] / N
    assert made == {"model.safetensors", "correction.safetensors", *ALWAYS, *repaired(act), published}
    reason, flag = version["confidence"]["reason"], verdict.replace("_", " ")
    [line] = [line for line in printed.err.splitlines() if "the deletion batch" in line]
    assert "WARNING" in line
    assert f"the deletion batch {flag}: {reason}; published: {published}" in line


ALWAYS = {"master.safetensors", "forgotten.safetensors"}


def repaired(act: str) -> set[str]:
    """Anything but a report repairs what is flagged."""
    return set() if act == "report" else {"repaired.safetensors"}


def test_what_is_flagged_is_repaired_though_the_settings_ask_for_no_epochs(
    acted: dict[str, tuple[Project, Done]],
) -> None:
    project, printed = acted["repair"]
    version = project.version()
    assert printed.json() == {"stage": "unlearn", "ran": True, "summary": version}
    assert version["settings"]["repair"]["epochs"] == 0.0
    before, after = (load_weights(project.data / "unlearned" / f"{name}.safetensors") for name in ("model", "repaired"))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert version["repaired_sha256"] != version["weights_sha256"]


def test_what_is_retrained_is_what_evaluation_retrains_bit_for_bit(acted: dict[str, tuple[Project, Done]]) -> None:
    project, _ = acted["retrain"]
    first, *others = (project.data / "retrained").glob("*.safetensors")  # with the run's seed and with another one
    assert others
    ours = load_weights(project.data / "unlearned/retrained.safetensors")
    same = [reference for reference in (first, *others) if same_bits(ours, load_weights(reference))]
    assert len(same) == 1


def same_bits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        value.numpy().tobytes() == theirs[name].numpy().tobytes() for name, value in ours.items()
    )
