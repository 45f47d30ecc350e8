"""Results of the campaign, a JSON file an experiment, and the page that is made of them.

`python -m tests.campaign.results` writes docs/reliability-results.md; `pytest -m campaign` does so at its end.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "reliability"
PAGE = ROOT / "docs" / "reliability-results.md"
PACKAGES = ("torch", "zarr", "tensorstore", "cryptography", "numpy", "safetensors", "prefect", "dvc")
TITLES = {
    1: "SIGKILL at every change on disk, at lines of our code, of sealing and of a whole deletion; then resumed",
    2: "the same, killed again during recovery",
    3: "SIGKILL at random times",
    4: "ENOSPC and EIO",
    5: "rows: bit flip, truncation, deletion, swap with a neighbour, an older copy",
    6: "concurrent jobs with overlapping requests; requests while a run is at work",
    7: "duplicate, replayed, empty, unknown-id, already erased, all-ids requests",
    8: "store and model out of step",
    9: "training killed at and between step boundaries, resumed",
    10: "residue scan after the receipt",
    11: "version-difference attack",
    12: "planted faults",
    13: "the journal on a PostgreSQL server: kills, sessions ended in the middle, jobs at once",
    14: "a team's set-up on loopback: two scheduled batches, two workers, one of them killed",
}
INTRODUCTION = """# The reliability campaign: results

Written by `make campaign` (`pytest -m campaign`); don't edit. The experiments are in `tests/campaign/`, on real files,
SQLite and processes; a short form of each runs in `make test`. A release:
`AMNESIAC_CAMPAIGN_KILLS=1000 make campaign`.

What is killed is a deletion at core level (`tests/campaign/cycle.py`: seal, stage, publish, destroy keys, purge, scan,
receipt; encrypted, 48 samples). The same states under Prefect and DVC are tested in `tests/pipeline/`.
Changes are openings for writing, renames, removals and new folders (Python's audit events), `os.write`, `os.fsync` and
SQL statements that change something. Native code (tensorstore, SQLite's own files) raises no audit events: it is hit by
kills at lines of our code and at random times.
""".splitlines()


def save(number, name, passed, facts, seconds):
    """Write a result; `facts`: what the page shows, text by label."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = {
        "experiment": number, "name": name, "passed": passed, "facts": facts, "seconds": round(seconds, 1),
        "at": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "commit": commit(),
    }  # fmt: skip
    path = FOLDER / f"{number:02d}-{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")


def machine():
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; {versions}"
    )


def commit():
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def page():
    """The page's text."""
    results = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    lines = [*INTRODUCTION, "| # | experiment | part | result | figures | s |", "|---|---|---|---|---|---|"]
    for one in results:
        figures = "; ".join(f"{label}: {value}" for label, value in one["facts"].items())
        result = "passed" if one["passed"] else "**FAILED**"
        number = one["experiment"]
        lines.append(f"| {number} | {TITLES[number]} | {one['name']} | {result} | {figures} | {one['seconds']:.0f} |")
    missing = sorted(set(TITLES) - {one["experiment"] for one in results})
    lines += ["", *(f"Not run: {number}, {TITLES[number]}." for number in missing)]
    lines += ["", "Seconds are wall time on a machine that other work shared. Measured on:", ""]
    lines += [f"- {machine}" for machine in dict.fromkeys(one["machine"] for one in results)]
    lines += [
        "",
        "Commits and days: " + ", ".join(dict.fromkeys(f"{one['commit']} ({one['at']})" for one in results)) + ".",
    ]
    notes = FOLDER / "notes.md"
    return "\n".join(lines) + "\n" + ("\n" + notes.read_text() if notes.exists() else "")


def write_page():
    PAGE.write_text(page())


if __name__ == "__main__":
    write_page()
