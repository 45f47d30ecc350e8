"""`benchmarks/table1.py` as a user runs it, on a few embedded digits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "table1.py"
SMALL = ("--data", "mnist-5k", "--limit", "300", "--epochs", "1", "--settings", "full")
DELETIONS = (
    "subset-one-0.1", "subset-one-0.05", "subset-one-0.01", "subset-lr-0.1", "subset-lr-1", "updates",
    "updates-partial", "delta",
)  # fmt: skip


def table1(*options, check=True):
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=check, cwd=ROOT)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table1")
    (work := folder / "work").mkdir()
    done = table1(*SMALL, "--repair", "0.5", "1", "--work", str(work), "--json", str(folder / "table1.json"))
    return done, json.loads((folder / "table1.json").read_text()), work


@pytest.fixture
def rows(small_run):
    (run,) = small_run[1]["settings"]["full"]["runs"]
    return {row["key"]: row for row in run["rows"]}


def test_prints_every_method_with_and_without_repair(small_run):
    output = small_run[0].stdout
    assert "| method " in output and "no repair | 0.5 epochs | 1 epoch" in output
    for label in ("original (nothing deleted)", "retrained", "per-sample x lr, p=1 ", "plain per-sample delta"):
        assert len(re.findall(rf"^\| {re.escape(label)}", output, re.M)) >= 2


def test_the_papers_numbers_stand_beside_its_own_setting_only(small_run):
    assert "P no repair" not in small_run[0].stdout


def test_the_run_is_described_and_nothing_is_left_in_the_work_folder(small_run):
    _, content, work = small_run
    (run,) = content["settings"]["full"]["runs"]
    assert run["samples"] == {"train": 240, "forget": 24, "test_forget": 6, "test_rest": 54}
    assert run["same_bits_as_plain_training"] is True
    assert content["environment"]["versions"]["torch"] and "--limit 300" in content["command"]
    assert list(work.iterdir()) == []


def test_deletions_move_the_model_and_retraining_is_its_own_reference(rows):
    reference = rows["retrained"]["repairs"]["0"]
    assert (reference["kl_forget"], reference["kl_test"]) == (0.0, 0.0)
    original = rows["original"]["repairs"]["0"]
    for key in DELETIONS:
        assert rows[key]["repairs"]["0"]["kl_test"] != original["kl_test"]
        assert rows[key]["repairs"]["1"]["kl_test"] != rows[key]["repairs"]["0"]["kl_test"]


def test_a_row_holds_its_fraction_of_the_parameters(rows):
    dense = rows["delta"]["bytes_per_sample"]
    assert dense == 4 * 95_110
    assert rows["subset-one-0.1"]["bytes_per_sample"] / dense == pytest.approx(0.1, rel=1e-3)
    assert rows["updates"]["bytes_per_sample"] == dense * 4 / 240  # four steps, for all training samples


def test_an_impossible_wish_is_one_line_and_exit_code_2(tmp_path):
    done = table1("--data", "mnist-5k", "--limit", "3", "--work", str(tmp_path), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("table1: ") and "data.limit 3" in done.stderr


def test_a_repair_on_the_way_is_the_repair_by_itself(monkeypatch):
    """`repaired` looks at one long repair instead of running each."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import table1 as script
    import table1_experiment as experiment
    import torch

    from amnesiac.settings import RepairSettings
    from amnesiac.training import repair

    args = script.parse(SMALL)
    samples, splits = script.load(args)
    job = experiment.make_job(samples, splits, script.SETTINGS["full"], 0, script.training(args), 3, None, print)
    weights = job.factory().state_dict()
    snapshots = experiment.repaired(job, weights, (0.5, 1.0, 2.0))
    for epochs in (0.5, 1.0, 2.0):
        alone = repair(job.spec, job.factory, weights, job.train, job.forget, RepairSettings(epochs=epochs)).weights
        assert all(torch.equal(alone[name], snapshots[epochs][0][name]) for name in alone)
