"""`amnesiac bench kappa`, `rows` and `seal` as a user runs them, on a few digits; calibration and cost."""

import dataclasses
import json
import math

import pytest
from typer.testing import CliRunner

from amnesiac.settings import DataSettings, OptimizerSettings, TrainingSettings
from benchmarks import forgetting, forgetting_cases, kappa, row_formats
from benchmarks.forgetting import Meter, Options
from benchmarks.forgetting_calibration import agreement
from benchmarks.forgetting_cases import ONE, TEN, Config, Profile
from flows.cli import app

TRAINING = TrainingSettings(epochs=2, optimizer=OptimizerSettings(lr=0.05, momentum=0.9))
TINY = Config("mlp-momentum", DataSettings(limit=500), "mlp", TRAINING, (ONE, TEN), (0,))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(forgetting_cases.PROFILES, "quick", Profile("quick", (TINY,)))


def printed(*words):
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_kappa_finds_the_best_of_nine_and_goes_on_from_its_cache(tiny, tmp_path):
    words = ("kappa", "--only", "mlp-momentum", "--seeds", "3", "--workers", "1", "--cache", str(tmp_path))
    result = json.loads(printed(*words, "--json"))
    assert [(row["case"], row["seed"]) for row in result["rows"]] == [(ONE, 3), (TEN, 3)]
    for row in result["rows"]:
        assert row["best_kl"] == min(row["kl"]) == row["kl"][row["kappas"].index(row["best"])]
        assert row["regret"] == pytest.approx(row["rule_kl"] / row["best_kl"]) and row["regret"] >= 1
        assert row["spread_kl"] > 0 and len({*row["kl"]}) == 9, "each kappa is another model"
    assert result["summary"]["rule"]["n"] == 2 and len(list(tmp_path.glob("kappa-*.json"))) == 1
    assert json.loads(printed(*words, "--json"))["rows"] == result["rows"]
    assert "within 10 % of the best" in printed(*words)


def test_regrets_are_summed_up_with_the_spread_of_retraining():
    kls = [2.0, 1.5, 1.2, 1.0, 1.05, 1.3, 1.6, 2.0, 3.0]
    place = {"kl": kls, "spread_kl": 0.25}
    rows = [place | kappa._judged(rule, kls) for rule in (1.4, 2.0, 2.8, 8.0)]
    assert [row["regret"] for row in rows] == [1.0, 1.05, 1.3, 3.0] and rows[0]["best"] == 1.4
    found = kappa.summary(rows)
    assert found["rule"]["within_10_percent"] == 0.5 and found["rule"]["within_10_percent_or_the_spread"] == 0.5
    wide = kappa.summary([row | {"spread_kl": 0.4} for row in rows])["rule"]
    assert wide["within_10_percent_or_the_spread"] == 0.75 and wide["largest_regret"] == 3.0
    assert found["rule"]["geometric_mean_regret"] == pytest.approx((1.05 * 1.3 * 3) ** 0.25)
    assert found["constant 2"]["geometric_mean_regret"] == pytest.approx(1.05)


def test_rows_have_bytes_fidelity_and_times_of_each_format(tiny):
    formats = ("low-rank 2 and 1, 8 bits", "low-rank 1 and 1, 8 bits", "dense, 32 bits")
    chosen = [word for name in formats for word in ("--only", name)]
    result = json.loads(printed("rows", "--json", "--workers", "1", "--only", "mlp-momentum", *chosen))
    by_name = {row["format"]: row for row in result["rows"]}
    assert tuple(by_name) == formats
    sizes = [by_name[name]["bytes_per_sample"] for name in formats]
    assert sizes[1] < sizes[0] < sizes[2] == 2 * 4 * 101_770
    dense = by_name["dense, 32 bits"]
    for row in by_name.values():
        assert row["seal_seconds"] > 0 and row["delete_ms"] > 0
        for case in row_formats.CASES:
            assert row[case]["kl_forget"] > 0 and 0 <= row[case]["retain_accuracy"] <= 1
        assert row[ONE]["kl_forget"] == pytest.approx(dense[ONE]["kl_forget"], rel=1)


def test_seal_states_every_stage_as_a_ratio_to_plain_training(tiny):
    result = json.loads(printed("seal", "--json", "--repeats", "2", "--only", "mlp-momentum"))
    rows = {row["variant"]: row for row in result["rows"]}
    assert [*rows] == ["plain training", "capture", "curvature", "pilots", "settling"]
    assert all(
        row["what"] == "seal" and row["n"] == 2 and row["low"] <= row["seconds"] <= row["high"] for row in rows.values()
    )
    assert rows["plain training"]["ratio"] == 1.0
    assert rows["curvature"]["ratio"] == pytest.approx(rows["curvature"]["seconds"] / rows["plain training"]["seconds"])
    assert rows["capture"]["bytes_per_sample"] == 2 * 4 * (128 + 785 + 10 + 129)
    assert rows["settling"]["bytes_per_sample"] == 3168 and rows["plain training"]["bytes_per_sample"] == 0
    assert all(row["peak_mb"] is None or row["peak_mb"] > 50 for row in rows.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rows", "--only", "nonsense"), "name configs ['cnn-momentum', 'mlp-momentum'] or formats"),
        (("kappa", "--only", "nonsense"), "--only ['nonsense']: name configs"),
        (("seal", "--only", "nonsense"), "--only ['nonsense']: name configs"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_runs(words, message):
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")


def settled(case, seed, predicted, measured, **more):
    row = {"case": case, "seed": seed, "method": "settled", "repaired": False}
    return row | {"predicted_kl": predicted, "kl_retain": measured} | more


def test_calibration_is_agreement_on_retained_samples_by_kind_of_forget_set():
    rows = [settled(ONE, 3, 0.001, 0.002), settled(TEN, 4, 0.01, 0.01), settled("30% random", 3, 0.1, 0.4)]
    rows += [settled("class 3", 3, 0.1, 0.1), settled("classes 3 and 8", 3, 0.4, 0.2)]
    rows += [settled(ONE, 3, 9.0, 0.1, repaired=True), settled(ONE, 3, 9.0, 0.1, method="plain")]
    found = agreement(rows)
    assert found["parts of the data"]["n"] == 3 and found["whole classes"]["n"] == 2 and found["all"]["n"] == 5
    assert found["parts of the data"]["within_3"] == pytest.approx(2 / 3) and found["whole classes"]["within_3"] == 1.0
    assert found["parts of the data"]["median_ratio"] == pytest.approx(0.5)
    assert found["all"]["log_correlation"] > 0.8 and found["seeds"] == [3, 4] and found["out_of_sample"]
    assert not agreement([settled(ONE, 0, 0.1, 0.1)])["out_of_sample"]


def test_calibration_seeds_are_not_those_it_was_fitted_on():
    from benchmarks.forgetting_calibration import FITTED_SEEDS

    assert not {seed for c in forgetting_cases.PROFILES["calibration"].configs for seed in c.seeds} & set(FITTED_SEEDS)


def test_the_result_says_what_it_cost(tiny, tmp_path):
    profile = Profile("calibration", (dataclasses.replace(TINY, cases=(ONE,)),))
    told = []
    options = Options(cache=tmp_path, workers=1)
    first = forgetting.benchmark(profile, options, lambda *progress: told.append(progress))
    assert first["cost"]["cpu_seconds"] > 0.5, "the worker's time is in it: importing torch alone takes longer"
    assert (first["cost"]["runs"], first["cost"]["cached_runs"]) == (1, 0) and first["calibration"]["all"]["n"] == 1
    again = forgetting.benchmark(profile, options, lambda *progress: None)
    assert (again["cost"]["runs"], again["cost"]["cached_runs"]) == (0, 1)
    assert again["cost"]["cpu_seconds"] < first["cost"]["cpu_seconds"]
    spent = Meter().facts(0, 0)
    assert math.isfinite(spent["wall_seconds"]) and spent["seconds_on_two_free_cores"] == spent["cpu_seconds"] / 2
