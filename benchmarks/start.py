"""How long the command line takes to begin: `amnesiac --help`, and `amnesiac status` of a real project.

    amnesiac bench start [--project DIR] [--json]

Claim:     help is there within .4 s, the state of a project within 1 s.
Measured:  whole processes, from their start to their exit.
Variants:  plain   `python -c pass`, the reference
           torch   `python -c "import torch"`: what anything that computes waits for
           help    `amnesiac --help`
           status  `amnesiac status --json` in the project; its exit codes 0 and 1 (a request is overdue) both count
Order:     every round takes the variants in turn, beginning with another one; medians over rounds, after a first round
           that isn't counted (files come from the disk then).
Rows:      one a variant. seconds: wall clock, median; spread: smallest and largest; cpu_seconds: of the process and
           what it starts, median; ratio: seconds / plain's.
Hardware, versions: in the result's `environment`, measured where it ran.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from amnesiac.errors import InputError
from benchmarks.forgetting import Options, environment

RUN = "import sys; from flows.cli import main; sys.argv = ['amnesiac', *sys.argv[1:]]; main()"
VARIANTS = {
    "plain": ("pass",),
    "torch": ("import torch",),
    "help": (RUN, "--help"),
    "status": (RUN, "status", "--json"),
}
LIMITS = {"help": 0.4, "status": 1.0}
OnRound = Callable[[str, int, int], None]
Taken = tuple[float, float]
"""Wall clock and CPU seconds."""


def start_benchmark(project: Path, rounds: int, on_round: OnRound) -> dict[str, Any]:
    """Run it; {"rows", "targets", "environment"} as JSON can hold it. Raises InputError where there is no project."""
    if not (project / "params.yaml").exists():
        raise InputError(f"{project} has no params.yaml: run this in a project's folder, or name one with --project")
    found, names = environment(Options(workers=1)), list(VARIANTS)
    taken: dict[str, list[Taken]] = {name: [] for name in names}
    for k in range(rounds + 1):
        for name in (*names[k % len(names) :], *names[: k % len(names)]):
            one = _process(VARIANTS[name], project)
            if k:
                taken[name].append(one)
        on_round("start", k + 1, rounds + 1)
    rows = [_row(name, own, taken["plain"]) for name, own in taken.items()]
    targets = [_target(row) for row in rows if row["variant"] in LIMITS]
    return {"rows": rows, "targets": targets, "environment": found}


def _process(words: Sequence[str], project: Path) -> Taken:
    """Seconds of one process; raises InputError with what it said where it failed."""
    before, started = os.times(), time.perf_counter()
    call = [sys.executable, "-c", *words]
    variables = os.environ | {"AMNESIAC_PROJECT": str(project.resolve())}
    done = subprocess.run(call, capture_output=True, text=True, env=variables, check=False)
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode not in (0, 1) or not done.stdout and words != VARIANTS["plain"] and words != VARIANTS["torch"]:
        raise InputError(f"`amnesiac {' '.join(words[1:])}` failed in {project}: {done.stderr.strip()[-400:]}")
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, cpu


def _row(name: str, taken: Sequence[Taken], plain: Sequence[Taken]) -> dict[str, Any]:
    walls = [wall for wall, _ in taken]
    return {
        "what": "start",
        "model": "-",
        "variant": name,
        "ratio": median(walls) / median(wall for wall, _ in plain),
        "seconds": median(walls),
        "spread": [min(walls), max(walls)],
        "cpu_seconds": median(cpu for _, cpu in taken),
        "n": len(taken),
    }


def _target(row: dict[str, Any]) -> dict[str, Any]:
    limit, seconds = LIMITS[row["variant"]], row["seconds"]
    return {"what": f"{row['variant']}, seconds", "measured": seconds, "target": limit, "met": seconds < limit}
