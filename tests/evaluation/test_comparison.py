import json
import math

import pytest
import torch
from torch import nn

from amnesiac.data import load_samples
from amnesiac.errors import InputError, SpecMismatch
from amnesiac.evaluation import accuracy_rows, compare, per_class_rows
from amnesiac.models import build_model
from amnesiac.settings import DataSettings, ModelSettings

NAMES = ["zero", "one", "two"]
CLASS = 2
DIVERGENCES = ["kl_forget", "kl_test", "margin_forget", "margin_retain", "margin_test", "relative_verification_error"]


class Table(nn.Module):
    """The logits are the parameters: input k asks for row k."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(2, 3))

    def forward(self, x):
        return self.rows[x.flatten().long()]


def table(first, second):
    return {"rows": torch.tensor([first, second], dtype=torch.float32).log()}


def ask(*rows_and_labels):
    rows, labels = zip(*rows_and_labels, strict=True) if rows_and_labels else ((), ())
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 1, 1), torch.tensor(labels, dtype=torch.int64)


WEIGHTS = {
    "original": table([8, 1, 1], [1, 8, 1]),
    "unlearned": table([2, 1, 1], [1, 8, 1]),
    "retrained": table([1, 2, 1], [1, 8, 1]),
}
SETS = {"forget": ask((0, 0)), "retain": ask((1, 1), (1, 0)), "test": ask((0, 0), (1, 1), (1, 1), (0, 1))}


def test_by_hand():
    metrics = compare(Table(), WEIGHTS, SETS, NAMES)
    unlearned = metrics["unlearned"]
    assert (unlearned["forget_accuracy"], unlearned["retain_accuracy"], unlearned["test_accuracy"]) == (1.0, 0.5, 0.75)
    assert unlearned["per_class_test_accuracy"] == {"zero": 1.0, "one": 2 / 3, "two": None}
    assert metrics["retrained"]["per_class_test_accuracy"] == {"zero": 0.0, "one": 1.0, "two": None}
    # KL((1,2,1)/4 || (2,1,1)/4) on row 0, nothing on row 1
    row = 0.25 * math.log(1 / 2) + 0.5 * math.log(2)
    assert unlearned["kl_forget"] == pytest.approx(row, abs=1e-6)
    assert unlearned["kl_test"] == pytest.approx(row / 2, abs=1e-6)
    # row 0, label zero: log(2/2) against log(1/3); label one: log(1/3) against log(2/2)
    assert unlearned["margin_forget"] == pytest.approx(math.log(3), abs=1e-6)
    assert unlearned["margin_retain"] == 0.0
    assert unlearned["margin_test"] == pytest.approx(math.log(3) / 2, abs=1e-6)
    # row 0: retrained log(1,2,1), unlearned log(2,1,1), original log(8,1,1)
    ratio = math.sqrt(2 * math.log(2) ** 2 / (math.log(8) ** 2 + math.log(2) ** 2))
    assert unlearned["relative_verification_error"] == pytest.approx(ratio, abs=1e-6)
    assert metrics["original"]["relative_verification_error"] == 1.0


def test_the_retrained_model_is_at_no_distance_from_itself():
    retrained = compare(Table(), WEIGHTS, SETS, NAMES)["retrained"]
    assert {name: retrained[name] for name in DIVERGENCES} == dict.fromkeys(DIVERGENCES, 0.0)


def test_the_summary_is_that_of_the_unlearned_model():
    weights = {**WEIGHTS, "repaired": WEIGHTS["retrained"]}
    metrics = compare(Table(), weights, SETS, NAMES)
    assert {name: metrics[name] for name in DIVERGENCES} == {n: metrics["unlearned"][n] for n in DIVERGENCES}
    assert metrics["kl_forget"] > 0 == metrics["repaired"]["kl_forget"]
    assert metrics["samples"] == {"forget": 1, "retain": 2, "test": 4}
    assert list(metrics)[:4] == ["original", "unlearned", "repaired", "retrained"]


def test_an_empty_forget_set_gives_null():
    metrics = compare(Table(), dict.fromkeys(WEIGHTS, WEIGHTS["original"]), {**SETS, "forget": ask()}, NAMES)
    for role in WEIGHTS:
        forget = [metrics[role][name] for name in ("forget_accuracy", "kl_forget", "margin_forget")]
        assert forget == [None, None, None]
        assert metrics[role]["relative_verification_error"] == 0.0
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_verification_error_that_is_not_defined_is_null():
    weights = {**WEIGHTS, "original": WEIGHTS["retrained"]}
    metrics = compare(Table(), weights, SETS, NAMES)
    assert metrics["relative_verification_error"] is None
    assert metrics["original"]["relative_verification_error"] == 0.0
    json.dumps(metrics, allow_nan=False)


def test_the_model_that_was_passed_stays_as_it_is():
    model = Table()
    compare(model, WEIGHTS, SETS, NAMES)
    assert torch.equal(model.rows, torch.zeros(2, 3)) and model.training


def test_rows_for_plots():
    metrics = compare(Table(), WEIGHTS, {**SETS, "forget": ask()}, NAMES)
    rows = accuracy_rows(metrics)
    assert {"model": "unlearned", "set": "test", "accuracy": 0.75} in rows
    assert [(row["model"], row["set"]) for row in rows] == [(m, s) for m in WEIGHTS for s in ("retain", "test")]
    classes = per_class_rows(metrics)
    assert {"what": "one, unlearned", "model": "unlearned", "class": "one", "accuracy": 2 / 3} in classes
    assert len(classes) == 6


def test_numbered_classes_keep_their_order_through_a_file_with_sorted_keys():
    names = [str(k) for k in (0, 2, 10)]
    test = ask((0, 0), (0, 1), (0, 2))
    metrics = json.loads(json.dumps(compare(Table(), WEIGHTS, {**SETS, "test": test}, names), sort_keys=True))
    assert [row["class"] for row in per_class_rows(metrics)[:3]] == names


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"retrained": None}, InputError, r"missing \['retrained'\], unknown \[\]"),
        ({"finetuned": WEIGHTS["original"]}, InputError, r"roles are original, .*unknown \['finetuned'\]"),
        ({"unlearned": {"rows": torch.zeros(2, 4)}}, SpecMismatch, "weights of the unlearned model don't fit"),
        (
            {"unlearned": table([1, math.nan, 1], [1, 8, 1])},
            InputError,
            "unlearned model's .* 1 of 1 samples of the forget",
        ),
    ],
)
def test_unusable_weights_are_refused(change, error, message):
    weights = {role: value for role, value in {**WEIGHTS, **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        compare(Table(), weights, SETS, NAMES)


@pytest.mark.parametrize(
    ("sets", "names", "message"),
    [
        ({"forget": ask(), "test": ask()}, NAMES, r"must be forget, retain, test, and \['forget', 'test'\]"),
        (SETS, ["a", "b", "a"], r"unique.*\['a', 'b', 'a'\]"),
        ({**SETS, "test": ask((0, 1), (0, 7))}, NAMES, "labels of the test set reach from 1 to 7, and there are 3"),
    ],
)
def test_unusable_sets_are_refused(sets, names, message):
    with pytest.raises(InputError, match=message):
        compare(Table(), WEIGHTS, sets, names)


def train(inputs, labels):
    model = build_model(ModelSettings(factory="mlp", options={"hidden": [32]}), (1, 28, 28), 10, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(8):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def test_forgetting_a_digit_on_real_images():
    """Retraining forgets the class; weights half-way between the two models are nearer than doing nothing."""
    real = load_samples(DataSettings(source="mnist-5k"), None, seed=0)
    inputs = torch.from_numpy(real.images[::5]).float() / 255
    labels = torch.from_numpy(real.labels[::5]).long()
    test = torch.arange(len(labels)) % 4 == 0
    keep = ~test & (labels != CLASS)
    original, retrained = train(inputs[~test], labels[~test]), train(inputs[keep], labels[keep])
    weights = {"original": original.state_dict(), "retrained": retrained.state_dict()}
    weights["unlearned"] = {name: (weights["original"][name] + w) / 2 for name, w in weights["retrained"].items()}
    forget = ~test & ~keep
    sets = {name: (inputs[m], labels[m]) for name, m in (("forget", forget), ("retain", keep), ("test", test))}
    metrics = compare(original, weights, sets, [str(k) for k in range(10)])
    assert metrics["original"]["forget_accuracy"] > 0.9 and metrics["retrained"]["forget_accuracy"] == 0.0
    assert metrics["original"]["per_class_test_accuracy"][str(CLASS)] > 0.5
    assert metrics["retrained"]["per_class_test_accuracy"][str(CLASS)] == 0.0
    assert metrics["retrained"]["retain_accuracy"] > 0.9
    assert 0 < metrics["kl_forget"] < metrics["original"]["kl_forget"]
    assert metrics["relative_verification_error"] == pytest.approx(0.5, abs=1e-3)
