"""What DVC says is stale, and telling DVC what a run outside of it has written.

A flow that DVC doesn't run (schedule, full cycle) asks `stale_stages` before and calls `record_stages` after, so that
`dvc status` ends clean. A stage that DVC runs does neither: DVC holds its lock then. Each call costs about 1 s.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import yaml

from amnesiac.durable import write_bytes
from amnesiac.errors import AmnesiacError

# of DVC's two locks: the repository's (held for moments) and the stages' (held while `dvc repro` runs a command)
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
_POLL_SECONDS = 1.0


class VersioningError(AmnesiacError):
    """DVC can't say what is stale, or can't record what was written; the message holds DVC's own."""


def under_dvc() -> bool:
    """Whether this process is the command of a DVC stage (DVC sets DVC_STAGE for it)."""
    return "DVC_STAGE" in os.environ


def stale_stages(project: Path, patience: float = 10.0) -> frozenset[str]:
    """Return the stages that `dvc repro` would run for reasons of their own: changed, damaged or never run.

    A stage further down is stale only once what it reads has changed, so ask again after each stage. Waits
    up to `patience` seconds for another dvc command to end; raises VersioningError.
    """
    report = run_dvc(project, patience, "status", "--json")
    try:
        return frozenset(json.loads(report))
    except json.JSONDecodeError as error:
        raise VersioningError(f"`dvc status --json` in {project} printed no JSON: {report[:500]!r}") from error


def record_stages(project: Path, names: Collection[str], patience: float = 60.0) -> None:
    """Write into dvc.lock (and DVC's cache) that the outputs on disk belong to the dependencies on disk.

    Call it only after the stages' own commands have run: DVC takes it on trust. It doesn't stage dvc.lock in git, even
    with core.autostage. Waits up to `patience` seconds for another dvc command to end. Raises VersioningError where
    DVC refuses (unknown stage, missing file), stays busy, or calls a stage stale afterwards.
    """
    if not names:
        return  # without names `dvc commit` would bless everything
    run_dvc(project, patience, "commit", "--force", "--", *sorted(names))
    left = stale_stages(project, patience) & set(names)
    if left:
        raise VersioningError(
            f"{', '.join(sorted(left))} changed in {project} while it was being recorded: look at `dvc status`, then "
            f"run `dvc repro {' '.join(sorted(left))}`"
        )


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
    _refuse_nesting()
    deadline = time.monotonic() + patience
    while True:
        # -P: the project's own packages must not shadow those that DVC imports
        command = [sys.executable, "-P", "-m", "dvc", *arguments]
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode == 0:
            return result.stdout
        if not any(sign in result.stderr for sign in _BUSY) or time.monotonic() >= deadline:
            raise VersioningError(_explain(project, arguments, result.stderr, patience))
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
