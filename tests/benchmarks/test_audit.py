"""The audit benchmark: its targets and settings. Its ensembles are tests/auditing's, its pool tests/pipeline's."""

import pytest

from amnesiac.errors import InputError
from benchmarks.audit import Options, load_setup, targets


def attack(low, high):
    return {"ulira": {"auc": (low + high) / 2, "auc_low": low, "auc_high": high, "passes": low <= 0.5 <= high}}


def made(settled, plain, retrained=(0.45, 0.55)):
    models = {"settled": settled, "per-sample-delta": plain, "retrained": retrained}
    return {name: {"models": {m: attack(*ends) for m, ends in models.items()}} for name in ("random", "mislabelled")}


def test_targets_are_of_the_random_set_and_every_held_out_retraining():
    found = targets(made((0.48, 0.53), (0.9, 0.95)))
    assert [(one["case"], one["met"]) for one in found] == [("random", True)] * 3 + [("mislabelled", True)]
    assert found[0]["what"] == "U-LiRA AUC of settled: .5 is inside its 95 % interval"
    assert found[1]["auc_low"] == 0.9 and "outside of" in found[1]["what"]


def test_what_is_told_apart_and_what_is_not_miss_their_targets():
    assert [one["met"] for one in targets(made((0.51, 0.6), (0.9, 0.95)))][:2] == [False, True]
    assert [one["met"] for one in targets(made((0.48, 0.6), (0.4, 0.95)))][:2] == [True, False]
    assert [one["met"] for one in targets(made((0.48, 0.6), (0.9, 0.95), (0.55, 0.6)))] == [True, True, False, False]


def test_an_unknown_config_is_named():
    with pytest.raises(InputError, match=r"no config 'mlp-sdg': choose from .*mlp-sgd"):
        load_setup(Options(config="mlp-sdg"))
