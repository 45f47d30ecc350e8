"""What the command line imports before it answers: those that only read records wait for nothing that computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amnesiac.errors import InputError
from benchmarks.start import RUN, VARIANTS, start_benchmark
from tests.pipeline.conftest import Cycled

HEAVY = {
    "torch",
    "torchvision",
    "pandas",
    "prefect",
    "matplotlib",
    "scipy",
    "zarr",
    "tensorstore",
    "dvc",
    "safetensors",
}
ASK = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); " + RUN


@pytest.mark.parametrize("words", [("--help",), ("status",), ("status", "--json"), ("history", "--json")])
def test_a_look_at_the_state_imports_nothing_heavy(cycled: Cycled, words: tuple[str, ...]) -> None:
    """The project has a trained model, a published version and requests in a batch."""
    variables = os.environ | {"AMNESIAC_PROJECT": str(cycled.project.root)}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words], capture_output=True, text=True, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    assert {"typer", "flows.cli"} <= imported and not imported & HEAVY
    if "--json" in words:
        found = json.loads(done.stdout)
        assert found["head"]["requests"] == 2 if words[0] == "status" else found["versions"][0]["head"]


def test_the_start_is_measured_in_a_project(cycled: Cycled, tmp_path: Path) -> None:
    seen: list[int] = []
    result = start_benchmark(cycled.project.root, 1, lambda name, done, total: seen.append(done))
    assert [row["variant"] for row in result["rows"]] == list(VARIANTS) and seen == [1, 2]
    by_name = {row["variant"]: row for row in result["rows"]}
    assert by_name["plain"]["ratio"] == 1.0 and all(row["cpu_seconds"] > 0 for row in result["rows"])
    assert {target["what"]: target["target"] for target in result["targets"]} == {
        "help, seconds": 0.4,
        "status, seconds": 1.0,
    }
    with pytest.raises(InputError, match=r"has no params\.yaml: run this in a project's folder"):
        start_benchmark(tmp_path, 1, lambda *_: None)
