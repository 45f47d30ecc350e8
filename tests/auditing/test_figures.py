"""The figures of ensembles, the verdict on a method, and the verdict on the audit itself."""

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch

from amnesiac.auditing import curve_rows, draw_audit, judge_audit, klom_rows, set_figures
from amnesiac.evaluation import to_svg


@pytest.fixture(scope="module")
def figures(audited):
    return set_figures(audited.ensembles["mislabelled"])


def test_a_held_out_retraining_passes_and_an_untouched_original_fails(figures):
    models = figures["models"]
    assert models["retrained"]["ulira"]["passes"] and not models["original"]["ulira"]["passes"]
    assert models["original"]["ulira"]["auc"] > 0.95
    band = figures["null_band"]
    assert models["original"]["klom_forget"]["0.5"] > band["high"]["0.5"] * 0.99 and band["models"] == 5
    assert models["original"]["epsilon"]["score"] < models["retrained"]["epsilon"]["score"]
    verdict = judge_audit({"mislabelled": figures}, "settled")
    assert verdict.sound and verdict.with_power == ("mislabelled",)
    assert "held-out retrainings pass on every set, and the untouched original is found out" in verdict.check


def test_figures_by_another_way(figures, audited):
    found = audited.ensembles["mislabelled"]
    original = figures["models"]["original"]
    right = found.logits["original"]["forget"].argmax(2) == found.labels["forget"]
    assert original["forget_accuracy"] == pytest.approx(float(right.double().mean()))
    own, other = (found.logits[name]["test"].double().log_softmax(2) for name in ("original", "retrained"))
    assert original["kl_test"] == pytest.approx(float((other.exp() * (other - own)).sum(2).mean()))
    tow = math.prod(
        1 - abs(original[f"{w}_accuracy"] - figures["models"]["reference"][f"{w}_accuracy"])
        for w in ("forget", "retain", "test")
    )
    assert original["tow"] == pytest.approx(tow)
    assert original["relearn_steps"] < figures["models"]["retrained"]["relearn_steps"]
    reference = figures["models"]["reference"]["relearn_steps"]
    assert original["relearn_ratio"] == pytest.approx(original["relearn_steps"] / reference)


def test_figures_are_json_and_name_no_sample(figures, audited):
    text = json.dumps(figures, allow_nan=False)
    assert not [one for one in audited.setup.train.sample_ids if f'"{one}"' in text]
    assert figures["samples"] == 6 and "positions" not in text


def test_a_method_that_does_nothing_is_told_apart(audited):
    found = audited.ensembles["mislabelled"]
    nothing = replace(
        found,
        logits=found.logits | {"settled": found.logits["original"]},
        relearn=found.relearn | {"settled": found.relearn["original"]},
    )
    verdict = judge_audit({"mislabelled": set_figures(nothing)}, "settled")
    assert verdict.sound and not verdict.passes and verdict.told_apart == ("mislabelled",)
    assert verdict.sentence.startswith(
        "Models unlearned by settled can be told from retrained ones (mislabelled: U-LiRA"
    )


def test_an_audit_that_accuses_retrainings_is_not_sound(audited):
    """As if the two sides had been trained in different ways."""
    found = audited.ensembles["mislabelled"]
    shifted = {w: value + 6 * torch.eye(3)[found.labels[w]] for w, value in found.logits["retrained"].items()}
    verdict = judge_audit(
        {"mislabelled": set_figures(replace(found, logits=found.logits | {"retrained": shifted}))}, "settled"
    )
    assert not verdict.sound
    assert (
        "fails its own check: held-out retrainings are told from other retrainings on the set 'mislabelled'"
        in verdict.check
    )


def test_a_blind_audit_is_not_sound_and_proves_nothing(audited):
    found = audited.ensembles["mislabelled"]
    blind = replace(found, logits=found.logits | {"original": found.logits["retrained"]})
    verdict = judge_audit({"mislabelled": set_figures(blind)}, "settled")
    assert not verdict.sound and verdict.with_power == ()
    assert "untouched original models pass for retrained ones on the set 'mislabelled'" in verdict.check
    assert "Train more models a side (--models)" in verdict.check
    assert verdict.sentence.startswith("No set tells even the untouched original from retraining")


def test_the_original_must_be_found_out_where_forgetting_matters(figures):
    passing = copy.deepcopy(figures)
    passing["models"]["original"]["ulira"]["passes"] = True
    assert judge_audit({"random": passing, "most memorised": figures}, "settled").sound
    assert not judge_audit({"random": figures, "most memorised": passing}, "settled").sound
    assert judge_audit({"least memorised": passing, "mislabelled": figures}, "settled").with_power == ("mislabelled",)


def test_plots_and_tables_hold_every_model_and_the_band(figures):
    sets = {"mislabelled": figures, "random": figures}
    drawn = draw_audit(sets)
    assert set(drawn) == {"roc", "klom"}
    roc = to_svg(drawn["roc"])
    for text in ("held-out retraining", "original (nothing done)", "settled", "false positive rate", "random"):
        assert text in roc
    assert re.search(rf"AUC {figures['models']['original']['ulira']['auc']:.3f}", roc)
    assert all(axes.get_xscale() == "log" == axes.get_yscale() for axes in drawn["roc"].axes)
    rows = curve_rows(sets)
    assert {row["model"] for row in rows} == {"original", "settled", "retrained"} and len(rows) == 2 * 3 * 81
    assert {row["model"] for row in klom_rows(sets)} >= {"null band low", "null band high", "settled"}
