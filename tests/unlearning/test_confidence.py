"""What is said of a deletion before it is published, against the formula by hand and against real retraining."""

import json
from math import hypot, inf, nan, nextafter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from amnesiac.data import load_samples
from amnesiac.evaluation import kl, predict
from amnesiac.models import build_model
from amnesiac.settings import (
    CaptureSettings,
    ConfidenceSettings,
    CurvatureSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    SettledSettings,
    UnlearningSettings,
)
from amnesiac.training import retrain_without
from amnesiac.unlearning import confidence, unlearn

LIMITS = ConfidenceSettings()
UNLIMITED = {"repair_above": 1e9, "retrain_above": 1e9, "drift_budget": 1e9}
SETTLED = UnlearningSettings(method="settled")
N = 1200


def settling(run, rows="settled"):
    """What sealing has left of its pilot deletions: the file, not what the code reads from it."""
    manifest = json.loads((run.folder / "manifest.json").read_text())["manifest"]
    return manifest["entries"][rows]["codec"]["settling"]


def length(run, one, other):
    """||one - other|| over what was trained."""
    return hypot(*(float((one[name].double() - other[name].double()).norm()) for name in run.parameters))


def deleted_from(run, forget):
    return unlearn(SETTLED, run.ledger, run.weights, forget)


def judged(run, forget, settings=LIMITS, master=None):
    master = deleted_from(run, forget).master if master is None else master
    return confidence(run.ledger, run.weights, master, forget, settings)


def predicted_by_hand(run, forget, pilot, skew=0.0, rows="settled"):
    """The formula of docs/methods.md, its constants repeated here."""
    facts = settling(run, rows)[pilot]
    norm = length(run, deleted_from(run, forget).master, run.weights)
    return 2 * (1 + 12 * skew * (1 - skew)) * facts["damage"] * (norm / facts["norm"]) ** 2


def few(count, seed=1):
    return np.random.default_rng(seed).permutation(N)[:count].tolist()


@pytest.fixture(scope="module")
def settled(train_run, tmp_path_factory):
    """23 samples of three classes, a model with BatchNorm statistics."""
    return train_run(tmp_path_factory.mktemp("settled"), methods=("settled",))


@pytest.fixture(scope="module")
def digits(small_run, tmp_path_factory):
    """MNIST's, at half their size so that the tests are quick; a segment an epoch, as fine as curvature can be, so
    that what is measured is the forget set's doing and not the segments'.
    """
    real = load_samples(DataSettings(source="mnist-5k"), None, seed=0)
    chosen = np.random.default_rng(0).permutation(5000)[:N]
    pixels = torch.tensor(real.images[chosen], dtype=torch.float32) / 255
    data = SimpleNamespace(inputs=F.avg_pool2d(pixels, 2), labels=torch.tensor(real.labels[chosen]))
    optimizer = OptimizerSettings(lr=0.05, momentum=0.9)
    capture = CaptureSettings(methods=("settled",), curvature=CurvatureSettings(segments=8))
    return small_run(
        tmp_path_factory.mktemp("digits"), digits_model, data, capture, optimizer=optimizer, epochs=8, batch=32
    )


def digits_model():
    return build_model(ModelSettings(options={"hidden": [32]}), (1, 14, 14), 10, 0)


def of_class(run, label):
    return torch.nonzero(run.data.labels == label).flatten().tolist()


def test_nothing_deleted_is_good(settled):
    found = judged(settled, [])
    assert (found.predicted_kl, found.drift, found.share) == (0.0, 0.0, 0.0)
    assert (found.verdict, found.reason) == ("good", "")


def test_the_prediction_is_the_formula_on_the_pilots_of_the_manifest(settled):
    forget = [0, 1, 2, 4]  # labels 0 1 2 1, of 8, 8 and 7 samples
    skew = 2 / 8 - 4 / 23
    found = judged(settled, forget)
    assert found.predicted_kl == pytest.approx(predicted_by_hand(settled, forget, "few", skew), rel=1e-9)
    assert found.predicted_kl > 1.3 * predicted_by_hand(settled, forget, "few"), "the skew counts"
    assert found.share == 4 / 23


def test_a_class_that_is_gone_is_judged_by_the_pilots_of_classes_and_has_no_skew(settled):
    whole = of_class(settled, 0)
    found = judged(settled, whole)
    assert found.predicted_kl == pytest.approx(predicted_by_hand(settled, whole, "whole"), rel=1e-9)
    assert found.predicted_kl != pytest.approx(predicted_by_hand(settled, whole, "few"), rel=0.01)


def test_a_part_of_another_class_beside_it_is_skew_again(settled):
    forget = [*of_class(settled, 0), *of_class(settled, 1)[:6]]
    skew = 6 / 8 - 14 / 23
    assert judged(settled, forget).predicted_kl == pytest.approx(
        predicted_by_hand(settled, forget, "whole", skew), rel=1e-9
    )


def test_order_and_repetition_change_nothing(settled):
    assert judged(settled, [4, 1, 0, 1, 2, 0]) == judged(settled, [0, 1, 2, 4])


def test_drift_is_the_change_over_the_path_of_training(settled):
    master = deleted_from(settled, [3, 9, 14]).master
    path = length(settled, settled.weights, settled.initial)
    assert settling(settled)["path"] == pytest.approx(path, rel=1e-5)
    found = judged(settled, [3, 9, 14])
    assert found.drift == pytest.approx(length(settled, master, settled.weights) / path, rel=1e-5)
    statistics = {name for name in master if name not in settled.parameters}
    assert statistics
    moved = {name: value + 7 if name in statistics else value for name, value in master.items()}
    assert judged(settled, [3, 9, 14], master=moved) == found, "BatchNorm's statistics aren't trained"


def test_verdicts_change_above_their_limits(settled):
    forget = [0, 1, 2, 4]
    predicted = judged(settled, forget).predicted_kl
    below = nextafter(predicted, 0.0)
    cases = {
        (predicted, predicted): "good",
        (below, predicted): "needs_repair",
        (below, below): "needs_retraining",
    }
    for (repair_above, retrain_above), verdict in cases.items():
        limits = UNLIMITED | {"repair_above": repair_above, "retrain_above": retrain_above}
        found = judged(settled, forget, ConfidenceSettings(**limits))
        assert (found.verdict, found.predicted_kl, bool(found.reason)) == (verdict, predicted, verdict != "good")


def test_reasons_name_what_was_found_the_limits_and_the_remedy(settled):
    forget = [0, 1, 2, 4]
    found = judged(settled, forget)
    retrain_above = 2 * found.predicted_kl
    limits = {"repair_above": found.predicted_kl / 2, "retrain_above": retrain_above, "drift_budget": 0.75}
    reason = judged(settled, forget, ConfidenceSettings(**limits)).reason
    assert f"predicted divergence from retraining {found.predicted_kl:.3g} nats" in reason
    assert f"(limits: repair {limits['repair_above']:g}, retraining {retrain_above:g})" in reason
    assert f"drift {found.drift:.3g} of 0.75" in reason
    assert reason.endswith("Repair on retained data")


def test_more_drift_than_its_budget_needs_retraining_however_good_the_prediction(settled):
    drift = judged(settled, [3, 9]).drift
    within, beyond = (
        judged(settled, [3, 9], ConfidenceSettings(**UNLIMITED | {"drift_budget": budget}))
        for budget in (drift, nextafter(drift, 0.0))
    )
    assert within.verdict == "good"
    assert beyond.verdict == "needs_retraining"
    assert f"drift {drift:.3g} of {drift:g}" in beyond.reason
    assert beyond.reason.endswith("Retrain without the deleted samples")


@pytest.mark.parametrize("broken", [nan, inf])
def test_weights_that_are_no_numbers_are_never_good(settled, broken):
    master = deleted_from(settled, [3]).master
    spoilt = master | {settled.parameters[0]: torch.full_like(master[settled.parameters[0]], broken)}
    assert judged(settled, [3], ConfidenceSettings(**UNLIMITED), spoilt).verdict == "needs_retraining"


def test_a_ledger_without_settled_rows_says_nothing(trained):
    forget = [1, 2]
    result = unlearn(UnlearningSettings(method="per-sample-delta"), trained.ledger, trained.weights, forget)
    assert confidence(trained.ledger, trained.weights, result.master, forget, LIMITS) is None


def test_rows_that_are_settled_at_deletion_are_judged_as_well(train_run, tmp_path):
    run = train_run(tmp_path, methods=("settled",), settled=SettledSettings(rows="unsettled"))
    forget = [0, 1, 2]  # one of each class
    by_hand = predicted_by_hand(run, forget, "few", 1 / 7 - 3 / 23, rows="contributions")
    assert judged(run, forget).predicted_kl == pytest.approx(by_hand, rel=1e-9)
    assert by_hand > 0


def test_the_prediction_grows_with_what_is_deleted_in_one_batch_or_in_several(digits):
    first, second, third = few(360)[:12], few(360)[12:120], few(360)[120:]
    master, before, found = None, [], []
    for batch in (first, second, third):
        master = unlearn(SETTLED, digits.ledger, digits.weights, batch, before=before, master=master).master
        before = [*before, *batch]
        found.append(judged(digits, before, master=master))
        assert found[-1] == judged(digits, before), "as if all had gone at once"
    assert 0 < found[0].predicted_kl < found[1].predicted_kl < found[2].predicted_kl
    assert 0 < found[0].drift < found[1].drift < found[2].drift
    assert [one.share for one in found] == [0.01, 0.1, 0.3]


def measured(run, forget):
    """KL(retrained || unlearned) on the samples that stay, nats."""
    target = retrain_without(run.spec, run.factory, run.data, forget).weights
    stay = np.setdiff1d(np.arange(N), forget)
    logits = []
    for weights in (target, deleted_from(run, forget).weights):
        model = run.factory()
        model.load_state_dict(weights)
        logits.append(predict(model, run.data.inputs[stay]))
    return kl(*logits)


def test_what_is_predicted_to_be_worse_is_worse_than_other_deletions_against_retraining(digits):
    forgets = [few(N * percent // 100, seed=percent) for percent in (2, 10, 30)]
    predicted = [judged(digits, forget).predicted_kl for forget in forgets]
    true = [measured(digits, forget) for forget in forgets]
    assert predicted == sorted(predicted)
    assert true == sorted(true)
    assert all(1 / 4 < p / t < 4 for p, t in zip(predicted, true, strict=True)), (predicted, true)


def test_much_of_one_class_is_predicted_to_be_worse_than_as_many_at_random(digits):
    members = of_class(digits, 3)
    of_one = members[: round(0.4 * len(members))]
    at_random = few(len(of_one))
    predicted = [judged(digits, forget).predicted_kl for forget in (at_random, of_one)]
    true = [measured(digits, forget) for forget in (at_random, of_one)]
    assert predicted[0] < predicted[1]
    assert true[0] < true[1], (predicted, true)


def test_drift_after_the_trained_weights_are_withdrawn_is_an_estimate_with_a_true_bound(digits):
    """Batches on from the version before, whose distance to the trained weights is known as a number alone."""
    for parts in (np.array_split(few(120), 6), np.array_split(of_class(digits, 3)[:60], 6)):
        before, master, estimate, most = (), digits.weights, 0.0, 0.0
        for part in parts:
            last = master
            done = unlearn(
                SETTLED, digits.ledger, digits.weights, part, before=before, master=None if not before else last
            )
            before, master = (*before, *part), done.master
            found = confidence(digits.ledger, last, master, before, LIMITS, estimate, most)
            exact = confidence(digits.ledger, digits.weights, master, before, LIMITS)
            assert exact.drift == exact.drift_at_most
            assert found.drift_at_most >= exact.drift * (1 - 1e-9)
            assert 0.5 < found.drift / exact.drift < 1.5
            estimate, most = found.drift, found.drift_at_most
        assert found.drift < found.drift_at_most
    unknown = confidence(digits.ledger, last, master, before, LIMITS, 0.5)
    assert unknown.drift_at_most == pytest.approx(
        0.5 + found.drift_at_most - most + length(digits, last, master) / settling(digits)["path"]
    )
