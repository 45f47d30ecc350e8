"""The command line, and what README.md, dvc.yaml and the Makefile say about it."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from flows.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
REPORTING = {
    "bench forgetting", "bench store", "bench kappa", "bench rows", "bench seal", "bench capture", "bench compare",
    "bench audit", "bench unlearn", "bench scaling", "bench start",
    "prepare", "train", "unlearn", "evaluate", "verify", "cycle", "request add", "request list",
    "publish", "recover", "restore", "rollback", "status", "history", "audit", "trial", "deploy", "size",
    "receipt list", "receipt show", "receipt verify", "receipt page",
    "journal move", "journal export",
    "recipient add", "recipient notified", "recipient list",
}  # fmt: skip
UNTIL_STOPPED = {"serve", "dashboard", "ui", "worker"}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command (of click, which Typer brings along under a name of its own) with its words."""
    groups = getattr(command, "commands", None)
    if groups is None:
        yield " ".join(path), command
        return
    for name, below in groups.items():
        yield from leaves(below, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def targets() -> set[str]:
    """The Makefile's targets that `make help` lists."""
    return set(re.findall(r"^([a-z0-9]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code_lines(text: str) -> list[list[str]]:
    """The words of every command in the fenced shell blocks of a Markdown text; comments and prompts are dropped."""
    blocks = re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in lines for part in re.split(r"&&|\|\||[|;]", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    bare = [[word for word in line if not re.fullmatch(r"[A-Z_]+=.*", word)] for line in words]
    return [[Path(line[0]).name, *line[1:]] for line in bare if line]


def complaint(words: list[str]) -> str | None:
    """Why a line can't work as it stands, None if it can (or isn't one of our programs)."""
    program, *rest = words
    if program == "amnesiac":
        return _complaint_about_amnesiac(rest)
    if program == "make":
        unknown = [word for word in rest if "=" not in word and not word.startswith("-") and word not in targets()]
        return f"no target {unknown}" if unknown else None
    if program == "dvc":
        return None if importlib.util.find_spec(f"dvc.commands.{rest[0]}") else f"dvc has no {rest[0]!r}"
    return None


def _complaint_about_amnesiac(rest: list[str]) -> str | None:
    if rest in (["--help"], ["--install-completion"]):
        return None
    name = next((name for name in COMMANDS if rest[: len(name.split())] == name.split()), None)
    if name is None:
        return f"no command {' '.join(rest)!r}"
    given = {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"}
    unknown = given - options(COMMANDS[name])
    return f"amnesiac {name} has no {sorted(unknown)}" if unknown else None


def test_the_commands_are_those_we_promise() -> None:
    assert set(COMMANDS) == REPORTING | UNTIL_STOPPED


@pytest.mark.parametrize("name", sorted(REPORTING | UNTIL_STOPPED))
def test_every_command_explains_itself_with_an_example_that_works(name: str) -> None:
    text = COMMANDS[name].help or ""
    example = re.search(r"Example: (?:\[bold\])?(amnesiac [^\[\]\n]*)", text)
    assert example, text
    words = shlex.split(example[1])
    assert " ".join(words[1:]).startswith(name), "the example shows another command"
    assert complaint(words) is None


@pytest.mark.parametrize("name", sorted(REPORTING))
def test_every_command_that_reports_something_can_do_so_for_programs(name: str) -> None:
    assert "--json" in options(COMMANDS[name])


def test_help_is_printed_by_the_installed_program_and_leaves_nothing_behind(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("amnesiac")
    result = subprocess.run([program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(name.partition(" ")[0] in result.stdout for name in COMMANDS)
    assert list(tmp_path.iterdir()) == []


def test_every_stage_runs_a_command() -> None:
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert stage["cmd"] == f"amnesiac {name}"
        assert complaint(shlex.split(stage["cmd"])) is None


def test_the_makefile_runs_commands_that_exist() -> None:
    recipes = re.findall(r"^\t@?(amnesiac .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipes
    assert [complaint(shlex.split(line)) for line in recipes] == [None] * len(recipes)


def test_a_wrong_line_of_a_readme_is_noticed() -> None:
    text = """
```sh
$ amnesiac unlern            # a typo
.venv/bin/amnesiac evaluate --jason && make dmeo
AMNESIAC_DATA_ROOT=/data amnesiac request add \\
    --sample a --class 3
make test ARGS='-k name'; dvc reproduce
dvc repro
python benchmarks/table1.py
```
```python
amnesiac nonsense
```
"""
    assert [complaint(words) for words in code_lines(text)] == [
        "no command 'unlern'",
        "amnesiac evaluate has no ['--jason']",
        "no target ['dmeo']",
        None,
        None,
        "dvc has no 'reproduce'",
        None,
        None,
    ]


def test_every_command_of_the_readme_exists() -> None:
    lines = code_lines(README.read_text())
    wrong = [f"{' '.join(words)}: {found}" for words in lines if (found := complaint(words))]
    assert not wrong
    assert not [words for words in code_lines((ROOT / "docs/receipts.md").read_text()) if complaint(words)]
    assert {"make", "amnesiac"} <= {words[0] for words in lines}, "no fenced sh block shows how to run it"
