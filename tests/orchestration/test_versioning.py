import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.versioning import VersioningError, record_stages, stale_stages, under_dvc

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  first:
    cmd: python make.py first
    deps: [make.py, input.txt]
    params: [x]
    outs:
      - folder: {persist: true}
    metrics:
      - metrics.json: {cache: false}
  second:
    cmd: python make.py second
    deps: [folder]
    outs: [copy.txt]
"""
MAKE = """
import json, pathlib, sys, time
import yaml
from tasks.versioning import under_dvc

def first():
    params = yaml.safe_load(open("params.yaml"))
    pathlib.Path("folder").mkdir(exist_ok=True)
    pathlib.Path("folder/part").write_text(f"{open('input.txt').read()} {params['x']}")
    pathlib.Path("metrics.json").write_text(json.dumps({"x": params["x"]}))
    pathlib.Path("nested").write_text(str(under_dvc()))
    if pathlib.Path("go-slowly").exists():
        pathlib.Path("go-slowly").unlink()
        while not pathlib.Path("go-on").exists():
            time.sleep(0.05)

def second():
    pathlib.Path("copy.txt").write_text(pathlib.Path("folder/part").read_text())

globals()[sys.argv[1]]()
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose two stages DVC has run."""
    project = tmp_path_factory.mktemp("finished")
    for name, text in {"dvc.yaml": DVC_YAML, "make.py": MAKE, "params.yaml": "x: 1\n", "input.txt": "a"}.items():
        (project / name).write_text(text)
    dvc(project, "init", "--no-scm", "--quiet")
    assert stale_stages(project) == {"first", "second"}, "never run"
    dvc(project, "repro", "--quiet")
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}


def dvc(project: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment(), check=True)


def run_outside_of_dvc(project: Path, stage: str) -> None:
    subprocess.run([sys.executable, "make.py", stage], cwd=project, env=environment(), check=True)


def test_only_a_stage_that_changed_is_stale(project: Path) -> None:
    assert stale_stages(project) == frozenset()
    (project / "params.yaml").write_text("x: 2\n")
    assert stale_stages(project) == {"first"}


def test_a_stage_run_outside_of_dvc_is_clean_once_recorded(project: Path) -> None:
    (project / "params.yaml").write_text("x: 3\n")
    (project / "input.txt").write_text("b")
    run_outside_of_dvc(project, "first")
    record_stages(project, ["first"])
    assert stale_stages(project) == {"second"}
    run_outside_of_dvc(project, "second")
    record_stages(project, {"second"})
    assert stale_stages(project) == frozenset()
    shutil.rmtree(project / "folder")
    dvc(project, "checkout", "--quiet", "folder")
    assert (project / "folder/part").read_text() == "b 3"


def test_a_stage_command_knows_that_dvc_runs_it(project: Path) -> None:
    assert (project / "nested").read_text() == "True"
    run_outside_of_dvc(project, "first")
    assert (project / "nested").read_text() == "False"


def test_nothing_to_record_leaves_changed_stages_stale(project: Path) -> None:
    (project / "copy.txt").write_text("altered")
    record_stages(project, [])
    assert stale_stages(project) == {"second"}


def test_what_dvc_refuses_is_told_with_its_own_words(project: Path, tmp_path: Path) -> None:
    with pytest.raises(VersioningError, match="'third' not found"):
        record_stages(project, ["third"])
    (project / "copy.txt").unlink()
    with pytest.raises(VersioningError, match=r"'copy\.txt' does not exist"):
        record_stages(project, ["second"])
    with pytest.raises(VersioningError, match="not inside of a DVC repository"):
        stale_stages(tmp_path)


def test_inside_a_stage_dvc_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "unlearn")
    assert under_dvc()
    with pytest.raises(VersioningError, match="command of DVC stage 'unlearn'"):
        stale_stages(tmp_path)


def test_a_busy_dvc_is_waited_for_but_not_for_ever(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "go-slowly").touch()
    sleep = time.sleep

    def found_it_busy(seconds: float) -> None:
        (project / "go-on").touch()  # only now: however busy the machine is, DVC was found busy before
        sleep(seconds)

    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--force", "first"]
    with subprocess.Popen(command, cwd=project, env=environment()) as repro:
        try:
            while (project / "go-slowly").exists():
                assert repro.poll() is None
                time.sleep(0.05)
            with pytest.raises(VersioningError, match=rf"(?s)another dvc command is running.*PID {repro.pid}"):
                stale_stages(project, patience=0)
            monkeypatch.setattr("tasks.versioning.time.sleep", found_it_busy)
            assert stale_stages(project, patience=300) == frozenset()
        finally:
            (project / "go-on").touch()
        assert (repro.wait(), (project / "go-slowly").exists()) == (0, False)


def test_dvc_is_asked_again_only_once_something_has_changed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, run = [], subprocess.run

    def counted(command: list[str], **options: Any) -> Any:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr("tasks.versioning.subprocess.run", counted)
    assert [stale_stages(project) for _ in range(3)] == [frozenset()] * 3
    assert len(started) == 1
    (project / "copy.txt").write_text((project / "copy.txt").read_text())
    assert stale_stages(project) == frozenset(), "another file of the same content"
    assert len(started) == 2
    (project / "folder/one more").touch()
    assert stale_stages(project) == {"first", "second"}
    record_stages(project, ["first"])
    assert len(started) == 4, "recorded and asked in one"
    assert stale_stages(project) == {"second"}
    assert len(started) == 4, "recording has asked already"
    (project / "dvc.lock").unlink()
    assert stale_stages(project) == {"first", "second"}
    assert len(started) == 5
