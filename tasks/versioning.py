"""What DVC says is stale, and telling DVC what a run outside of it has written.

A flow that DVC doesn't run (schedule, full cycle) asks `stale_stages` before and calls `record_stages` after, so that
`dvc status` ends clean. A stage that DVC runs does neither: DVC holds its lock then. Starting DVC costs about 1 s, so
what it said is kept until a file that a stage names changes, and recording and asking again share one start.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from amnesiac.durable import write_bytes
from amnesiac.errors import AmnesiacError

# of DVC's two locks: the repository's (held for moments) and the stages' (held while `dvc repro` runs a command)
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
_POLL_SECONDS = 1.0
# DVC's own main, once for each command, in one process: most of a command's time is DVC's start
_COMMANDS = """
import json, sys
from dvc.cli import main
for words in json.loads(sys.argv[1]):
    if code := main(words):
        sys.exit(code)
"""
_ALSO_READ = ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/config.local")
# What is on disk where a stage looks: size, inode and times of every file, by path
Fingerprint = frozenset[tuple[str, int, int, int, int]]
_answers: dict[Path, tuple[Fingerprint, frozenset[str]]] = {}


class VersioningError(AmnesiacError):
    """DVC can't say what is stale, or can't record what was written; the message holds DVC's own."""


def under_dvc() -> bool:
    """Whether this process is the command of a DVC stage (DVC sets DVC_STAGE for it)."""
    return "DVC_STAGE" in os.environ


def stale_stages(project: Path, patience: float = 10.0) -> frozenset[str]:
    """Return the stages that `dvc repro` would run for reasons of their own: changed, damaged or never run.

    A stage further down is stale only once what it reads has changed, so ask again after each stage. DVC isn't asked
    twice about the same files: see `_fingerprint`. Waits up to `patience` seconds for another dvc command to end;
    raises VersioningError.
    """
    _refuse_nesting()
    before, (known, answer) = _fingerprint(project), _answers.get(project, (None, frozenset[str]()))
    if known == before:
        return answer
    report = run_dvc(project, patience, "status", "--json")
    return _understood(project, report, before)


def record_stages(project: Path, names: Collection[str], patience: float = 60.0) -> None:
    """Write into dvc.lock (and DVC's cache) that the outputs on disk belong to the dependencies on disk.

    Call it only after the stages' own commands have run: DVC takes it on trust. It doesn't stage dvc.lock in git, even
    with core.autostage. Waits up to `patience` seconds for another dvc command to end. Raises VersioningError where
    DVC refuses (unknown stage, missing file), stays busy, or calls a stage stale afterwards.
    """
    if not names:
        return  # without names `dvc commit` would bless everything
    before = _fingerprint(project)
    commit, status = ("commit", "--force", "--", *sorted(names)), ("status", "--json")
    report = _run(project, patience, commit, status)
    left = _understood(project, report, before, but="dvc.lock") & set(names)
    if left:
        raise VersioningError(
            f"{', '.join(sorted(left))} changed in {project} while it was being recorded: look at `dvc status`, then "
            f"run `dvc repro {' '.join(sorted(left))}`"
        )


def _understood(project: Path, report: str, before: Fingerprint, but: str | None = None) -> frozenset[str]:
    """The stages that `dvc status` names; kept if no file but one has changed since `before`, when DVC hadn't begun."""
    try:
        said = report.splitlines()[-1:]  # above it, `dvc commit` may have said something
        stale = frozenset[str](json.loads("".join(said)))
    except json.JSONDecodeError as error:
        raise VersioningError(f"`dvc status --json` in {project} printed no JSON: {report[:500]!r}") from error
    after = _fingerprint(project)
    if all(entry[0] == but for entry in before ^ after):
        _answers[project] = (after, stale)
    return stale


def _fingerprint(project: Path) -> Fingerprint:
    """What DVC's answer depends on, seen as DVC itself sees it: a file is unchanged if size, inode and times are."""
    named = {name for stage in _stages(project).values() for name in _paths(stage)}
    places = [project / name for name in (*_ALSO_READ, *named)]
    found = [path for place in places for path in (place, *place.rglob("*")) if path.exists()]
    return frozenset(_entry(project, path) for path in found)


def _entry(project: Path, path: Path) -> tuple[str, int, int, int, int]:
    at = path.stat()
    return str(path.relative_to(project)), at.st_size, at.st_ino, at.st_mtime_ns, at.st_ctime_ns


def _stages(project: Path) -> Mapping[str, Any]:
    path = project / "dvc.yaml"
    content = yaml.safe_load(path.read_text()) if path.exists() else None
    return (content or {}).get("stages") or {}


def _paths(stage: Mapping[str, Any]) -> Iterator[str]:
    """What a stage of dvc.yaml reads and writes; an entry is a path, or a path with options."""
    for kind in ("deps", "outs", "metrics", "plots"):
        for entry in stage.get(kind) or ():
            yield from [entry] if isinstance(entry, str) else entry


def forget_stages(project: Path, names: Collection[str]) -> None:
    """Take stages out of dvc.lock, as if they had never run: stale, and `dvc gc` keeps nothing of theirs."""
    path = project / "dvc.lock"
    content = yaml.safe_load(path.read_text()) if path.exists() else None
    if content and set(names) & set(content.get("stages") or {}):
        content["stages"] = {name: stage for name, stage in content["stages"].items() if name not in names}
        write_bytes(path, yaml.safe_dump(content, sort_keys=False).encode())


def run_dvc(project: Path, patience: float, *arguments: str) -> str:
    """Run dvc and return what it prints; while another dvc command holds a lock, try again until `patience` is over.

    Raises VersioningError with DVC's own words.
    """
    _answers.pop(project, None)  # `dvc gc` changes what no stage names
    return _run(project, patience, arguments)


def _run(project: Path, patience: float, *commands: tuple[str, ...]) -> str:
    _refuse_nesting()
    deadline = time.monotonic() + patience
    while True:
        # -P: the project's own packages must not shadow those that DVC imports
        words = [sys.executable, "-P", "-c", _COMMANDS, json.dumps(commands)]
        result = subprocess.run(words, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode == 0:
            return result.stdout
        if not any(sign in result.stderr for sign in _BUSY) or time.monotonic() >= deadline:
            raise VersioningError(_explain(project, commands[0], result.stderr, patience))
        time.sleep(_POLL_SECONDS)


def _refuse_nesting() -> None:
    if under_dvc():
        raise VersioningError(
            f"this is the command of DVC stage {os.environ['DVC_STAGE']!r}, and DVC holds its lock until it ends: "
            "check under_dvc() and leave status and commit to DVC"
        )


def _explain(project: Path, arguments: tuple[str, ...], message: str, patience: float) -> str:
    command = f"`dvc {' '.join(arguments)}` in {project}"
    if any(sign in message for sign in _BUSY):
        return (
            f"{command}: another dvc command is running (waited {patience:g} s); try again when it has ended. {message}"
        )
    return f"{command} failed: {message.strip() or 'no message'}"
