"""Errors of a command become one line and an exit code."""

import errno
from pathlib import Path

import pytest
import typer

from flows.session import ready


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    return tmp_path


def test_a_full_disk_is_one_line_with_a_remedy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left, ready(server=False):
        raise OSError(errno.ENOSPC, "No space left on device", str(project / "HEAD.json"))
    assert left.value.exit_code == 1
    said = capsys.readouterr().err
    assert f"error: No space left on device: {project}/HEAD.json. Free disk space" in said
    assert "Traceback" not in said


def test_a_closed_pipe_says_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, ready(server=False):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert left.value.code == 1
    assert capsys.readouterr().err == ""
