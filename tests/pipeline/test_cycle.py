"""`amnesiac cycle` from nothing: files, dashboard, versions and what is kept from view."""

import json
import re
from typing import Any

import pandas as pd

from tests.pipeline.conftest import Cycled
from tests.pipeline.project import ask, finish, flow_runs

SAMPLE_ID = rb"mnist-5k-\d{5}"
SUBFLOWS = [
    "prepare mnist-5k",
    "train mlp on mnist-5k",
    "unlearn 2 requests, per-sample-delta",
    "evaluate per-sample-delta, 27 forgotten",
]
FLOWS = ["prepare", "train_and_capture", "unlearn_batch"]
LOOKS = ["file requests", "recover", "archive the reports", "plan the batch", "watch the deadlines"]
ACCURACIES = {"forget_accuracy", "retain_accuracy", "test_accuracy"}


def artifacts(server: str, runs: frozenset[str]) -> dict[str, dict[str, Any]]:
    """The newest artifact of each key that these runs made."""
    mine = {"flow_run_id": {"any_": sorted(runs)}}
    found = ask(server, "artifacts/filter", artifacts=mine, sort="CREATED_DESC")
    return {artifact["key"]: artifact for artifact in reversed(found)}


def test_a_table_is_printed_and_the_run_can_be_opened(cycled: Cycled) -> None:
    assert all(role in cycled.printed.out for role in ("original", "unlearned", "repaired", "retrained"))
    [number] = re.findall(r"/runs/flow-run/([0-9a-f-]{36})", cycled.printed.out)
    assert cycled.project.server is not None
    [run] = [run for run in flow_runs(cycled.project.server) if run["id"] == number]
    assert (run["name"], run["state"]["name"]) == ("full cycle", "Completed")
    assert set(run["parameters"]) == {"handed_in", "force"}
    assert re.fullmatch(r"[0-9a-f]{16}", run["parameters"]["handed_in"]), "a reference: no id, no class"
    assert list((cycled.project.data / "journal/handed-in").iterdir()) == [], "filed, and removed"


def test_the_flow_and_its_four_subflows_are_completed_and_show_what_they_made(cycled: Cycled) -> None:
    server = cycled.project.server
    assert server is not None
    runs = [run for run in flow_runs(server) if run["id"] in cycled.runs]
    assert [(run["name"], run["state"]["type"]) for run in runs] == [
        (name, "COMPLETED") for name in ["full cycle", *SUBFLOWS]
    ]
    assert all(run["parent_task_run_id"] for run in runs[1:]), "nested in the full cycle"
    shown = artifacts(server, cycled.runs)
    assert [row["model"] for row in json.loads(shown["result"]["data"])] == [
        "original", "unlearned", "repaired", "retrained",
    ]  # fmt: skip
    assert "seed-to-seed band" in shown["verdict"]["data"]
    asked = json.loads(shown["requests"]["data"])
    assert [(one["kind"], one["receipt"]) for one in asked] == [("random", "not yet"), ("class", "not yet")]
    [archived] = (cycled.project.data / "reports").glob("batch-*/report.html")
    assert archived.as_uri() in shown["archived-report"]["data"]
    assert (cycled.project.data / "evaluation/report.html").as_uri() in shown["report"]["data"]
    figures = {png.stem.replace("_", "-") for png in (cycled.project.data / "evaluation").glob("*.png")}
    assert "examples" in figures, "in the report until the samples are erased"
    assert "examples" not in shown, "but never in Prefect's database"
    figures -= {"examples"}
    assert figures
    assert all(shown[name]["data"].startswith("data:image/png;base64,") for name in figures)
    progress = {key: artifact["data"] for key, artifact in shown.items() if artifact["type"] == "progress"}
    sealing = "train-and-capture-seal"
    expected = ["prepare-data", "train-and-capture", sealing, "repair", "retrain", "retrain-with-other-seeds"]
    assert progress == dict.fromkeys(expected, 100.0)


def test_dvc_calls_it_clean_and_shows_metrics_and_plots(cycled: Cycled) -> None:
    project = cycled.project
    status, metrics = finish(project.dvc("status"), project.dvc("metrics", "show", "--json"))
    assert "up to date" in status.out
    [shown] = [file["data"] for file in metrics.json()[""]["data"].values()]
    assert shown == json.loads((project.data / "metrics.json").read_text())
    plotted = pd.read_csv(project.data / "evaluation/accuracy.csv"), pd.read_csv(project.data / "model/history.csv")
    assert {"accuracy", "model"} <= set(plotted[0].columns)
    assert list(plotted[1]["epoch"]) == [1, 2]
    [drawn] = finish(project.dvc("plots", "show", "--json"))
    plots = {name.rpartition("::")[2]: found for name, found in drawn.json()["data"].items()}
    assert plots.keys() == {"accuracy", "fidelity", "per_class", "attack", "training"}
    points = plots["attack"][0]["content"]["data"]["values"]
    assert {point["field"] for point in points} == {"original", "unlearned", "retrained"}
    assert len(points) == 3 * 101


def test_nothing_is_done_twice_and_the_numbers_can_be_read_by_programs(cycled: Cycled) -> None:
    project, server = cycled.project, cycled.project.server
    assert server is not None
    before, known = project.weights(), {task["id"] for task in ask(server, "task_runs/filter")}
    earlier = {run["id"] for run in flow_runs(server)}
    again, evaluated, listed = finish(
        # without PREFECT_API_URL: the project's running server is found
        project.without_server().amnesiac("cycle", "--random-people", "5", "--forget-class", "3", "--json"),
        project.amnesiac("evaluate", "--json"),
        project.amnesiac("request", "list", "--json"),
    )
    assert again.json() == evaluated.json()
    metrics = evaluated.json()
    for role in ("original", "unlearned", "retrained"):
        assert all(0.0 <= metrics[role][name] <= 1.0 for name in ACCURACIES)
    assert all(metrics[name] >= 0.0 for name in ("kl_forget", "kl_test", "relative_verification_error"))
    assert metrics["seconds"].keys() == {
        "train", "seal", "unlearn", "repair", "retrain", "retrain, other seed 1", "evaluate",
    }  # fmt: skip
    assert project.weights() == before
    new = [task["name"] for task in ask(server, "task_runs/filter") if task["id"] not in known]
    assert {name.rpartition("-")[0] for name in new} == {*LOOKS, *FLOWS}, "nothing was trained or subtracted"
    states = [(run["name"], run["state"]["name"]) for run in flow_runs(server) if run["id"] not in earlier]
    assert states.count(("unlearn 0 requests, per-sample-delta", "Nothing to do")) == 1
    assert states.count(("full cycle", "Completed")) == 1, "the second one found the server by itself"
    assert [(r["kind"], r["values"], r["state"]) for r in listed.json()["requests"]] == [
        ("random", 5, "PUBLISHED"),
        ("class", 1, "PUBLISHED"),
    ]
    assert listed.json()["counts"] == {"PUBLISHED": 2}, "a request filed twice is one request"


def test_no_sample_id_leaves_the_journal(cycled: Cycled) -> None:
    project = cycled.project
    assert re.search(SAMPLE_ID, (project.data / "journal/deletions.sqlite").read_bytes()), "or nothing could be found"
    for path in [*(project.root / ".prefect").glob("prefect.db*"), *(project.root / ".prefect").glob("*.log")]:
        assert not re.findall(SAMPLE_ID, path.read_bytes()), path
    for name in ("params.yaml", "dvc.lock", "pipeline_data/requests.json", "pipeline_data/unlearned/version.json"):
        assert not re.findall(SAMPLE_ID, (project.root / name).read_bytes()), name
    for name in ("prepared", "model", "ledger", "unlearned", "keys", "evaluation"):
        files = [path for path in (project.data / name).rglob("*") if path.is_file()]
        assert files, name
        assert not [path for path in files if re.search(SAMPLE_ID, path.read_bytes())]
    assert not re.findall(SAMPLE_ID, project.git("log", "--all", "--patch").encode())
    assert set(project.git("ls-files").split()) == {
        ".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "dvc.lock", "dvc.yaml", "params.yaml",
        "pipeline_data/requests.json",
    }  # fmt: skip
    assert project.git("status", "--short") == "", "all else is ignored"
