import json

import pytest
import torch
from torch import nn

from amnesiac.evaluation import band_sentence, compare, membership, membership_curves, within
from amnesiac.evaluation.membership import GRID
from amnesiac.models import build_model
from amnesiac.settings import ModelSettings


def logits(margins, labels, classes=2):
    """Two-class logits whose margins are given: margin = z_y - z_other."""
    rows = torch.zeros(len(margins), classes, dtype=torch.float64)
    rows[range(len(margins)), labels] = torch.tensor(margins, dtype=torch.float64)
    return rows


def attacked(forgotten, unseen, forgotten_labels=None, unseen_labels=None):
    a = torch.tensor(forgotten_labels or [0] * len(forgotten))
    b = torch.tensor(unseen_labels or [0] * len(unseen))
    return membership(logits(forgotten, a), a, logits(unseen, b), b)


def test_the_area_is_how_often_a_forgotten_sample_is_above_an_unseen_one_ties_counting_half():
    assert attacked([3, 2], [1, 0]).auc == 1.0
    assert attacked([1, 0], [3, 2]).auc == 0.0
    assert attacked([1, 1], [1, 1]).auc == 0.5
    assert attacked([2, 0], [1, 1]).auc == 0.5
    assert attacked([3, 1], [2, 1]).auc == (1 + 1 + 0 + 0.5) / 4


def test_a_curve_goes_from_corner_to_corner_and_never_falls():
    found = attacked([3, 1, 1], [2, 1, 0, -1])
    assert len(found.tpr) == len(GRID) == 101 and (GRID[0], GRID[-1]) == (0.0, 1.0)
    assert found.tpr[-1] == 1.0 and all(a <= b for a, b in zip(found.tpr, found.tpr[1:], strict=False))
    assert found.tpr[0] == pytest.approx(1 / 3), "one forgotten sample lies above all unseen ones"
    assert found.tpr[25] == pytest.approx(1 / 3) and found.tpr[50] == 1.0


def test_classes_weigh_as_among_the_forgotten_so_a_forgotten_class_is_no_giveaway():
    # class 0 has high margins everywhere, class 1 low ones; forgotten is class 0 alone
    plain = attacked([5, 6], [5, 6, -5, -6, -7], [0, 0], [0, 0, 1, 1, 1])
    assert plain.auc == 0.5, "unseen samples of the other class don't count"
    # three of class 0, one of class 1; unseen one each: 3/4 and 1/4
    weighted = attacked([2, 2, 2, 0], [1, 1], [0, 0, 0, 1], [0, 1])
    assert weighted.auc == pytest.approx(3 / 4)
    assert attacked([1], [1], [0], [1]) is None, "no unseen sample of the class"


@pytest.fixture(scope="module")
def compared():
    """Five random models; the "other seeds" differ from the retrained one as the others do."""
    models = [build_model(ModelSettings(factory="mlp"), (1, 4, 4), 3, seed).state_dict() for seed in range(5)]
    roles = dict(zip(("original", "unlearned", "retrained"), models, strict=False))
    generator = torch.Generator().manual_seed(0)
    sets = {
        name: (torch.randn(n, 1, 4, 4, generator=generator), torch.arange(n) % 3)
        for name, n in (("forget", 9), ("retain", 30), ("test", 30))
    }
    model = build_model(ModelSettings(factory="mlp"), (1, 4, 4), 3, 9)
    return model, roles, models[3:], sets, ["a", "b", "c"]


def test_the_band_is_the_largest_distance_of_another_seed(compared):
    model, roles, others, sets, names = compared
    metrics = compare(model, roles, sets, names, others=others)
    alone = [compare(model, {**roles, "unlearned": other}, sets, names) for other in others]
    assert metrics["band"]["models"] == 3
    assert metrics["band"]["kl_forget"] == max(one["kl_forget"] for one in alone)
    assert metrics["band"]["relative_verification_error"] == max(one["relative_verification_error"] for one in alone)
    wanted = metrics["retrained"]["test_accuracy"]
    assert metrics["band"]["test_accuracy"] == max(abs(one["unlearned"]["test_accuracy"] - wanted) for one in alone)
    assert json.loads(json.dumps(metrics)) == metrics
    assert "band" not in compare(model, roles, sets, names)
    assert metrics["unlearned"] == compare(model, roles, sets, names)["unlearned"], "the band changes nothing else"


def test_what_is_within_the_band_is_said(compared):
    model, roles, others, sets, names = compared
    metrics = compare(model, roles, sets, names, others=others)
    metrics["band"] |= {"kl_forget": metrics["unlearned"]["kl_forget"], "kl_test": metrics["unlearned"]["kl_test"] / 3}
    assert within(metrics, "unlearned", "kl_forget") is True and within(metrics, "unlearned", "kl_test") is False
    assert band_sentence(metrics, "unlearned") == (
        "Its divergence from retraining is within the seed-to-seed band on the forget set and 3 times the seed-to-seed "
        "band on the test set."
    )
    metrics["band"] |= {"test_accuracy": 0.0, "kl_test": 0.0}
    assert within(metrics, "retrained", "test_accuracy") is True
    assert "beyond the seed-to-seed band on the test set" in band_sentence(metrics, "unlearned")
    del metrics["band"]
    assert within(metrics, "unlearned", "kl_test") is None and band_sentence(metrics, "unlearned") == ""


def test_an_empty_forget_set_has_no_attack(compared):
    model, roles, others, sets, names = compared
    empty = {**sets, "forget": (torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))}
    metrics = compare(model, roles, empty, names, others=others)
    assert metrics["unlearned"]["membership_auc"] is None and metrics["band"]["kl_forget"] is None
    assert membership_curves(model, roles, empty) == []


def test_curves_as_rows_and_the_model_as_it_was(compared):
    model, roles, _, sets, _ = compared
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = membership_curves(model, roles, sets)
    assert len(rows) == 3 * 101 and {row["model"] for row in rows} == set(roles)
    assert isinstance(model, nn.Module) and all(torch.equal(before[n], v) for n, v in model.state_dict().items())
