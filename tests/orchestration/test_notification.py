"""The user's command is run without a shell, and that it fails is logged and fails nothing."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SECTIONS = ("data", "model", "training", "capture", "unlearning", "evaluation")

SHOW = "import json, sys; json.dump([sys.argv[1:], json.load(sys.stdin)], open('told.json', 'w'))"


@pytest.fixture
def notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    from tasks.notification import notify as product

    def call(*command: str) -> None:
        sections = {"seed": 0} | {name: {} for name in SECTIONS}
        recurrence = {"notify_command": list(command)} if command else {}
        (tmp_path / "params.yaml").write_text(json.dumps(sections | {"recurrence": recurrence}))
        product("failed", {"state": "Failed"})

    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    return call


def test_it_gets_its_arguments_as_they_are_and_json(notify: Callable[..., None], tmp_path: Path) -> None:
    notify(sys.executable, "-c", SHOW, "$HOME; true", "*")
    arguments, message = json.loads((tmp_path / "told.json").read_text())
    assert arguments == ["$HOME; true", "*"]
    assert (message["event"], message["state"], message["project"]) == ("failed", "Failed", str(tmp_path))


@pytest.mark.parametrize(
    ("command", "said"),
    [(("/nowhere/mail",), "No such file"), ((sys.executable, "-c", "raise SystemExit(3)"), "exit status 3")],
)
def test_a_command_that_fails_is_logged(
    notify: Callable[..., None], command: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "amnesiac"):
        notify(*command)
    assert said in caplog.text
    assert "didn't take 'failed'" in caplog.text


def test_without_a_command_nothing_is_run(notify: Callable[..., None], tmp_path: Path) -> None:
    notify()
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
