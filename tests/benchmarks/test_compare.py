"""The comparison with other methods: its sets, its search, its ensembles and summary, and a tiny run of all of it."""

import dataclasses
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from amnesiac.settings import DataSettings, OptimizerSettings, TrainingSettings, UnlearningSettings
from amnesiac.unlearning import unlearn
from amnesiac.unlearning.peers import PEERS
from benchmarks import compare, forgetting
from benchmarks.compare_cases import (
    CASES,
    MEMORISED,
    MLP,
    Profile,
    data_of,
    folds_of,
    memorisation,
    sets_by_memorisation,
)
from benchmarks.compare_ensembles import ensemble_figures, rows_of, uses_retain_data
from benchmarks.compare_plot import apart, draw, kind_of, write_plot
from benchmarks.compare_recording import recorded, train
from benchmarks.compare_search import budget, chosen
from benchmarks.compare_summary import sentence, summarised
from benchmarks.compare_table import markdown
from benchmarks.forgetting_cases import MISLABELLED, ONE
from flows.cli import app

TINY = dataclasses.replace(
    MLP,
    data=DataSettings(limit=400),
    training=TrainingSettings(epochs=2, optimizer=OptimizerSettings(lr=0.05, momentum=0.9)),
)
PROFILE = Profile("tiny", (TINY,), members=4, reported=(2,), rounds=1, pilots=(900,))
METHODS = {"retrained", "retrained_other_seed", "original", "plain", "raw_lr", "settled", *PEERS}
FIELDS = {
    "config", "case", "dataset", "model", "optimizer", "method", "seed", "forget_accuracy", "retain_accuracy",
    "test_accuracy", "kl_forget", "kl_test", "margin_forget", "margin_test", "relative_verification_error", "seconds",
    "bytes_per_sample", "klom_forget", "klom_forget_p95", "ulira_auc", "ulira_auc_low", "ulira_auc_high",
    "ulira_tpr_at_1_fpr", "tow", "relearn_ratio", "uses", "uses_retain_data", "members",
}  # fmt: skip
LEVELS = {
    "retrained": 0.0, "retrained_other_seed": 0.1, "original": 1.0, "plain": 5.0, "settled": 0.02, "influence": 0.05,
    "ssd": 0.5, "r2d": 0.01, "scrub": 0.7,
}  # fmt: skip


def record(method, seed, value, **changes):
    """A member's record as compare_run makes it."""
    accuracies = {f"{name}_accuracy": 0.9 for name in ("forget", "retain", "test")}
    figures = dict.fromkeys(("kl_forget", "kl_test", "margin_forget", "margin_test"), value)
    generator = torch.Generator().manual_seed(1000 * sorted(LEVELS).index(method) + seed)
    margins = (torch.randn(5, generator=generator) + 4 * min(value, 2.0)).tolist()
    row = {"case": ONE, "method": method, "seed": seed, "seconds": 0.01, "relearn_steps": 4, "margins": margins}
    return row | accuracies | figures | changes


def hand_made(seeds=8, **levels):
    return [record(m, seed, v + 0.001 * seed) for seed in range(seeds) for m, v in (LEVELS | levels).items()]


def in_process(jobs, options, on_job, work):
    """`forgetting.run` without processes."""
    found = []
    for k, job in enumerate(jobs):
        found += json.loads(json.dumps(work(job)))
        on_job(job.label, k + 1, len(jobs))
    return found


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run", in_process)
        seen = []
        found = compare.benchmark(PROFILE, compare.Options(), lambda *words: seen.append(words))
    return found | {"seen": seen}


def test_memorisation_is_what_training_with_a_sample_adds_to_its_label():
    probabilities = np.array([[0.9, 0.2], [0.5, 0.8], [0.7, 0.6]])
    left_out = np.array([[False, True], [True, False], [False, False]])
    assert memorisation(probabilities, left_out) == pytest.approx([0.8 - 0.5, 0.7 - 0.2])


def test_folds_leave_every_sample_out_once_a_round_and_differ_between_rounds():
    folds = folds_of(41, 0)
    assert sorted(np.concatenate(folds)) == list(range(41)) and len(folds) == 4
    assert not np.array_equal(folds[0], folds_of(41, 1)[0])


def test_sets_are_stratified_and_pilots_are_disjoint_from_what_is_reported():
    labels, scores = torch.arange(4000) % 10, np.linspace(0, 1, 4000)
    sets = sets_by_memorisation(labels, scores)
    assert set(sets.reported) == set(sets.pilots) == set(CASES)
    assert sets.reported[MEMORISED] == list(range(3960, 4000)) and sets.pilots[MEMORISED] == list(range(3920, 3960))
    assert set(labels[sets.reported[MISLABELLED]].tolist()) == {3, 5}
    for case in CASES:
        assert len(sets.reported[case]) == len(sets.pilots[case]) == (80 if case == MISLABELLED else 40)
        assert not set(sets.reported[case]) & set(sets.pilots[case])
        assert sets.reported[case] == sorted(sets.reported[case])


def test_the_strength_with_the_lowest_mean_is_chosen_and_none_that_diverged():
    def trial(strength, seed, score):
        return {"case": ONE, "peer": "scrub", "strength": strength, "seed": seed, "score": score, "seconds": 0.5}

    scores = {0.1: (0.4, 0.4), 0.3: (0.1, 0.5), 1.0: (0.01, None)}
    trials = [trial(strength, seed, score) for strength, own in scores.items() for seed, score in enumerate(own)]
    strengths = chosen(trials)
    assert strengths == {ONE: {"scrub": 0.3}}
    (line,) = budget(trials, strengths)
    assert line["tried"] == [0.1, 0.3, 1.0] and line["pilots"] == 2 and line["cpu_seconds"] == 3.0
    assert line["chosen"] == 0.3 and not line["at_an_end"]


def test_rows_of_reported_seeds_have_the_ensembles_figures():
    records = hand_made()
    records[0] |= {"relearn_steps": 8}  # retrained, seed 0
    rows = rows_of(records, (0, 3))
    assert len(rows) == 2 * len(LEVELS) and {row["seed"] for row in rows} == {0, 3}
    by = {(row["method"], row["seed"]): row for row in rows}
    assert by["settled", 0]["relearn_ratio"] == 0.5 and by["settled", 3]["relearn_ratio"] == 1.0
    assert by["plain", 0]["ulira_auc"] > 0.95 and by["plain", 0]["klom_forget"] > by["settled", 0]["klom_forget"]
    assert by["retrained", 0]["ulira_auc"] == by["retrained", 3]["ulira_auc"], "the ensemble's, whatever the seed"
    assert by["settled", 0]["members"] == 8 and "margins" not in by["settled", 0]
    assert by["settled", 0]["uses"] == ["ledger"] and by["r2d", 0]["uses_retain_data"]
    assert not by["ssd", 0]["uses_retain_data"] and by["retrained", 0]["uses_retain_data"]


def test_tow_is_against_the_retraining_of_the_same_seed():
    changed = [
        row | ({"forget_accuracy": 0.7} if (row["method"], row["seed"]) == ("settled", 1) else {})
        for row in hand_made()
    ]
    found = {row["seed"]: row["tow"] for row in rows_of(changed, (0, 1)) if row["method"] == "settled"}
    assert found == {0: 1.0, 1: pytest.approx(0.8)}


def test_an_ensemble_that_diverged_or_is_too_small_has_no_figures():
    few = ensemble_figures(hand_made(3), ONE, "settled")
    assert few["klom_forget"] is None and few["ulira_auc"] is None and few["members"] == 3
    broken = hand_made()
    next(row for row in broken if row["method"] == "ssd")["margins"][0] = math.nan
    assert ensemble_figures(broken, ONE, "ssd")["ulira_auc"] is None
    assert ensemble_figures(broken, ONE, "settled")["ulira_auc"] is not None


def test_the_summary_says_where_settled_deltas_stand():
    summary, targets = summarised(hand_made(), {"config": "mlp"})
    assert [line["figure"] for line in summary] == ["kl_forget", "kl_test", "margin_forget", "margin_test"]
    line = summary[0]
    assert (line["place_without"], line["methods_without"], line["place"], line["methods"]) == (1, 5, 2, 7)
    assert line["best_without"] == "influence" and line["nearer_with"] == ["r2d"] and line["settled_below_best"] == 1.0
    assert line["members"] == 8 and line["spread"] == pytest.approx(0.1035)
    assert all(target["met"] for target in targets)
    assert "1 of 5 without retained data (best other: influence 0.0535), 2 of 7 in all; nearer with" in sentence(line)


def test_a_target_is_missed_beyond_the_spread_and_where_nothing_is_finite():
    _, near = summarised(hand_made(settled=0.14), {"config": "mlp"})
    _, far = summarised(hand_made(settled=0.2), {"config": "mlp"})
    assert near[0]["met"] and near[0]["what"] == "KL on F: influence's + spread" and not far[0]["met"]
    broken = [row | ({"kl_forget": None} if row["method"] == "settled" else {}) for row in hand_made()]
    line, targets = (found[0] for found in summarised(broken, {"config": "mlp"}))
    assert line["means"]["settled"] is None and not targets["met"] and "settled not finite" in sentence(line)


def test_every_method_has_a_complete_row_for_every_set_and_reported_seed(result):
    for case in CASES:
        own = [row for row in result["rows"] if row["case"] == case]
        assert {(row["method"], row["seed"]) for row in own} == {(m, 2) for m in METHODS}
        assert all(row.keys() >= FIELDS for row in own)
        assert {row["members"] for row in own} == {4}
    json.dumps({name: value for name, value in result.items() if name != "seen"}, allow_nan=False)
    pieces = 4 + 3 + 2 * 4
    assert [words[1:] for words in result["seen"]] == [(k + 1, pieces) for k in range(pieces)]


def test_rows_are_measured_against_the_retrained_model_of_the_same_seed(result):
    by = {(row["case"], row["method"]): row for row in result["rows"]}
    for case in CASES:
        assert by[case, "retrained"]["kl_forget"] == 0.0
        assert by[case, "retrained"]["tow"] == 1.0 == by[case, "retrained"]["relearn_ratio"]
        assert by[case, "original"]["relative_verification_error"] == 1.0
        for method in METHODS - {"retrained"}:
            assert by[case, method]["kl_test"] > 0.0
    assert by[MISLABELLED, "settled"]["kl_forget"] < by[MISLABELLED, "original"]["kl_forget"]
    assert 0 < by[ONE, "settled"]["bytes_per_sample"] < by[ONE, "plain"]["bytes_per_sample"]
    assert by[ONE, "r2d"]["bytes_per_sample"] == pytest.approx(4 * 2 * 101_770 / 320, rel=0.01)


def test_the_search_is_stated_and_equal(result):
    assert len(result["search"]) == 3 * (len(PEERS) - 1)
    assert {len(line["tried"]) for line in result["search"]} == {5} and {
        line["pilots"] for line in result["search"]
    } == {1}
    assert all(line["chosen"] in line["tried"] and line["cpu_seconds"] > 0 for line in result["search"])
    assert {line["case"] for line in result["forget_sets"]} == set(CASES)
    assert len(result["summary"]) == len(result["targets"]) == 12 and result["cost"]["cpu_seconds"] > 0


def test_the_most_memorised_samples_are_more_memorised(result):
    lines = {line["case"]: line for line in result["forget_sets"]}
    assert lines[MEMORISED]["memorisation"] > lines[MEMORISED]["pilot_memorisation"] > lines[ONE]["memorisation"]


def test_rows_sealed_for_the_forget_set_alone_are_those_of_the_whole_ledger():
    """And the run with capture is the run without."""
    data, forget = data_of(TINY, None), [3, 77, 150]
    weights = []
    for wanted in (forget, range(len(data.train))):
        with TemporaryDirectory() as folder, recorded(TINY, data, 0, wanted, Path(folder)) as run:
            assert len(run.ledger.sample_rows(list(wanted))) == len(wanted)
            weights.append(
                unlearn(UnlearningSettings(method="settled"), run.ledger, run.original.weights, forget).weights
            )
    plain = train(TINY, data, 0).result.weights
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
        torch.testing.assert_close(plain[name], run.original.weights[name], rtol=0, atol=1e-11)


def test_kinds_of_data_are_told_apart():
    assert {kind_of(m) for m in ("plain", "raw_lr", "settled")} == {"ledger"}
    assert {kind_of(m) for m in ("ssd", "influence", "gradient-ascent")} == {"forget"}
    assert all(kind_of(m) == "retain" for m in PEERS if uses_retain_data(m))


def test_labels_are_kept_apart_and_in_order():
    places = apart([0.1, 0.11, 0.12, 0.9, 1.2], 0.1)
    assert all(b - a > 0.099 for a, b in zip(places, places[1:], strict=False))
    assert places[-1] <= 0.95 and places[0] > 0.0 and apart([0.2, 0.6], 0.1) == [0.2, 0.6]


def test_the_plot_has_a_panel_a_case_with_a_name_for_every_method(tmp_path, result):
    figure = draw(result)
    assert [axes.get_title() for axes in figure.axes] == list(CASES)
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in figure.axes} == {("log", "log")}
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == METHODS - {"retrained", "retrained_other_seed", "original"}
    write_plot(tmp_path / "compare.svg", result)
    assert (tmp_path / "compare.svg").read_text().startswith("<svg")


def test_the_table_has_a_line_a_method_the_nearest_first_and_retraining_last(result):
    tables = markdown(result).split("**mlp-momentum, ")[1:]
    assert [table.partition("**")[0] for table in tables] == list(CASES)
    lines = [line for line in tables[0].splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(METHODS) and "| **settled** | ledger | " in tables[0]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert {line.split(" |")[0] for line in lines[-2:]} == {"| retrained, other seed", "| retrained (0 by definition)"}
    needs = ["retained data" in line for line in lines[:-2]]
    assert needs == sorted(needs)


def test_the_command_prints_one_object_or_tables_and_goes_on_from_its_cache(tmp_path, monkeypatch):
    small = dataclasses.replace(PROFILE, members=1, reported=(0,), configs=(dataclasses.replace(TINY, cases=(ONE,)),))
    monkeypatch.setitem(compare.PROFILES, "quick", small)
    monkeypatch.setattr(
        forgetting,
        "_run_in_pool",
        lambda jobs, workers, work: ((job, json.loads(json.dumps(work(job)))) for job in jobs),
    )
    plot, words = tmp_path / "plot.png", ["bench", "compare", "--cache", str(tmp_path / "cache")]
    table = tmp_path / "table.md"
    done = CliRunner().invoke(app, [*words, "--json", "--plot", str(plot), "--table", str(table)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["method"] for row in found["rows"]} == METHODS and found["cost"]["runs"] == 4 + 1 + 1
    assert plot.read_bytes().startswith(b"\x89PNG") and "| **settled** |" in table.read_text()
    again = CliRunner().invoke(app, [*words, "--json", "--check"])
    result = json.loads(again.stdout)
    assert result["rows"] == found["rows"] and result["cost"]["cached_runs"] == 6
    assert again.exit_code == (0 if all(target["met"] for target in result["targets"]) else 1)
    text = CliRunner().invoke(app, words).stdout
    assert "mlp-momentum, 1% random" in text and "without retained data (best other:" in text
    assert f"of {len(result['targets'])} targets met" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "kl.pdf"], "error: --plot kl.pdf: the file's name must end in .png or .svg"),
        (["--only", "nonsense"], "error: --only ['nonsense']: name configs"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_runs(words, message):
    done = CliRunner().invoke(app, ["bench", "compare", *words], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and message in done.stderr
