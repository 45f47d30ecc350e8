"""What DVC keeps of superseded outputs goes from its cache and remotes; what the workspace names stays. Real DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from amnesiac.erasure import Purge, Target
from amnesiac.errors import PurgeRefused
from tasks.purging import cache_folder, cached_objects, object_paths, purge_dvc
from tasks.versioning import VersioningError, record_stages, stale_stages

DVC_YAML = """
stages:
  make:
    cmd: python make.py
    deps: [make.py, input.txt]
    outs: [folder, copy.txt]
"""
MAKE = """
import pathlib, shutil
text = open("input.txt").read()
shutil.rmtree("folder", ignore_errors=True)
pathlib.Path("folder").mkdir()
pathlib.Path("folder/always").write_text("the same")
pathlib.Path("folder/part").write_text("part " + text)
pathlib.Path("copy.txt").write_text("copy " + text)
"""
OBJECTS = 4
"""The list of the folder, its two files, and the copy."""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has run once, with two remotes that hold its outputs."""
    root = tmp_path_factory.mktemp("begun")
    project = root / "project"
    project.mkdir()
    for name, text in {"dvc.yaml": DVC_YAML, "make.py": MAKE, "input.txt": "writer-0042"}.items():
        (project / name).write_text(text)
    dvc(project, "init", "--no-scm", "--quiet")
    dvc(project, "remote", "add", "--quiet", "--default", "near", "../near")
    dvc(project, "remote", "add", "--quiet", "far", str(root / "far remote"))
    dvc(project, "repro", "--quiet")
    push(project)
    return root


@pytest.fixture
def project(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, whose remotes are copied too."""
    shutil.copytree(begun, tmp_path / "root")
    project = tmp_path / "root" / "project"
    dvc(project, "remote", "modify", "far", "url", str(tmp_path / "root" / "far remote"))
    return project


def dvc(project: Path, *arguments: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment, check=True)


def push(project: Path) -> None:
    for name in ("near", "far"):
        dvc(project, "push", "--quiet", "--remote", name)


def supersede(project: Path) -> None:
    """The outputs without the erased person, recorded."""
    (project / "input.txt").write_text("nobody")
    subprocess.run([sys.executable, "make.py"], cwd=project, check=True)
    record_stages(project, ["make"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outputs(project: Path) -> dict[str, bytes]:
    return contents(project / "folder") | {"copy.txt": (project / "copy.txt").read_bytes()}


def test_superseded_outputs_go_from_cache_and_remotes_and_the_workspace_stays(project: Path) -> None:
    stores = [project / ".dvc/cache", project.parent / "near", project.parent / "far remote"]
    first = cached_objects(stores[0])
    assert len(first) == OBJECTS
    supersede(project)
    push(project)
    now = outputs(project)
    assert all(first.keys() < cached_objects(store).keys() for store in stores)
    gone = purge_dvc(project)
    assert [one.place for one in gone] == ["dvc cache", "dvc remote near", "dvc remote far"]
    left = [cached_objects(store) for store in stores]
    assert left[0] == left[1] == left[2]
    superseded = first.keys() - left[0].keys()
    assert len(superseded) == 3, "all but the file that is the same in both"
    for one in gone:
        assert (one.objects, one.bytes, one.left) == (3, sum(first[name] for name in superseded), OBJECTS)
    for store in stores:
        assert not [name for name, data in contents(store / "files").items() if b"writer-0042" in data]
    assert outputs(project) == now
    assert stale_stages(project) == frozenset()
    for name in ("folder", "copy.txt"):
        shutil.rmtree(project / name) if name == "folder" else (project / name).unlink()
    dvc(project, "checkout", "--quiet")
    assert outputs(project) == now
    assert [(one.objects, one.bytes, one.left) for one in purge_dvc(project)] == [(0, 0, OBJECTS)] * 3


def test_a_cache_that_others_may_use_is_not_emptied_behind_their_back(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    shared = tmp_path / "shared"
    shutil.copytree(project / ".dvc/cache", shared)
    for one in (project, other):
        dvc(one, "cache", "dir", "--quiet", str(shared))
    supersede(project)
    assert cache_folder(project) == shared
    with pytest.raises(PurgeRefused, match=r"shared lies outside of .*name them in `sharing`"):
        purge_dvc(project)
    assert len(cached_objects(shared)) == 2 * OBJECTS - 1
    gone = purge_dvc(project, sharing=[other])
    assert [one.objects for one in gone] == [0, 0, 0], "the other project still names the old ones"
    assert stale_stages(other) == frozenset()


def test_a_remote_that_can_not_be_read_is_told_in_dvcs_words(project: Path) -> None:
    dvc(project, "remote", "add", "--quiet", "broken", "gs://nowhere")
    supersede(project)
    with pytest.raises(VersioningError, match=r"(?s)gc --workspace --force --cloud --remote broken.*gs"):
        purge_dvc(project)
    assert len(cached_objects(project / ".dvc/cache")) == OBJECTS, "the places before it are done"


def test_objects_can_be_purged_by_their_hashes(project: Path, tmp_path: Path) -> None:
    cache = cache_folder(project)
    held = cached_objects(cache)
    chosen = sorted(held)[:2]
    purge = Purge(tmp_path / "plan.json", [cache])
    purge.add([Target("dvc cache", path) for path in object_paths(cache, chosen)], overwrite=True)
    [place] = purge.run()
    assert (place.files, place.bytes) == (2, sum(held[name] for name in chosen))
    assert cached_objects(cache).keys() == held.keys() - set(chosen)
