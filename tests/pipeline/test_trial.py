"""`amnesiac trial` on a real project: what it foretells is what the deletion then does, and it changes nothing."""

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest

from amnesiac.errors import InputError
from tasks.trials import TrialPlan, plan_trials
from tests.pipeline.project import Project, ask, finish

TRIAL = ("trial", "--random", "2", "--share", "0.03", "--forget-class", "7", "--json")


def test_trials_are_shown_and_change_nothing(copied: Callable[[str], Project]) -> None:
    project = copied("shown")
    published = project.version()
    [printed] = finish(project.amnesiac("trial", "--random", "1", "--share", "0.03", "--forget-class", "7", "--json"))
    rows = printed.json()["rows"]
    assert [row["trial"] for row in rows] == ["random 1", "class 7"]
    assert rows[0]["samples"] == round(0.03 * 240) and rows[1]["samples"] > 10
    assert project.version() == published
    folder = project.data / "reports/trials"
    assert json.loads((folder / "trials.json").read_text())["rows"] == rows
    table = csv.DictReader((folder / "trials.csv").read_text().splitlines())
    assert [row["trial"] for row in table] == [row["trial"] for row in rows]
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert project.server is not None
    assert {"trials", "trials-kl"} <= {one["key"] for one in ask(project.server, "artifacts/latest/filter")}


@pytest.mark.campaign
def test_trials_foretell_what_deletions_do_on_dask_as_without(copied: Callable[[str], Project]) -> None:
    project = copied("tried")
    rows = tried(project)
    assert rows[0]["kl_forget_unlearned"] != rows[1]["kl_forget_unlearned"], "other samples"
    params = project.root / "params.yaml"
    params.write_text(params.read_text() + "\norchestration: {task_runner: dask, workers: 2}\n")
    assert [without_seconds(row) for row in tried(project)] == [without_seconds(row) for row in rows]
    assert finish(project.dvc("status"))[0].out.strip() == "Data and pipelines are up to date.", "of either run"

    finish(project.amnesiac("request", "add", "--class", "7"))
    finish(project.amnesiac("unlearn"))
    finish(project.amnesiac("evaluate"))
    metrics = json.loads((project.data / "metrics.json").read_text())
    for model in ("unlearned", "retrained"):
        assert metrics[model]["test_accuracy"] == rows[2][f"test_accuracy_{model}"]
    assert metrics["unlearned"]["kl_test"] == pytest.approx(rows[2]["kl_test_unlearned"], rel=1e-6)
    assert metrics["band"]["kl_test"] == pytest.approx(rows[2]["seed_kl_test"], rel=1e-6)


def tried(project: Project) -> list[dict[str, Any]]:
    [printed] = finish(project.amnesiac(*TRIAL))
    rows: list[dict[str, Any]] = printed.json()["rows"]
    return rows


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (TrialPlan(share=1.5), "share is 1.5: give a part of the training samples, between 0 and 1"),
        (TrialPlan(share=0.99), "random 1: 238 samples are asked for, and [0-9]+ can still be deleted"),
        (TrialPlan(classes=("3",)), "class 3: 0 samples are asked for, and 0 can still be deleted"),
        (TrialPlan(classes=("no such",)), r"no class is called \['no such'\]: choose from 0, 1, 2"),
        (TrialPlan(random=0), "nothing to try: ask for random batches, or name classes"),
    ],
)
def test_what_cannot_be_tried_is_named(shown: Project, plan: TrialPlan, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_trials.fn(plan)


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("_seconds")}
