"""`capture.layers`: only the chosen layers have rows; a deletion leaves the others as they are, and says so."""

import pytest
import torch
from torch import nn

from amnesiac.capture.hooks import chosen_layers
from amnesiac.errors import SettingsError
from amnesiac.models import save_weights
from amnesiac.settings import (
    CaptureSettings,
    ConfidenceSettings,
    CurvatureSettings,
    OptimizerSettings,
    UnlearningSettings,
)
from amnesiac.unlearning import confidence, unlearn
from amnesiac.verification import Version, verify

CURVATURE = CurvatureSettings(smallest_sample=16, segments=2)
FORGET = (1, 5, 20)


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def capture(**changes):
    return CaptureSettings(**({"methods": ("settled", "per-sample-delta"), "curvature": CURVATURE} | changes))


@pytest.fixture(scope="module")
def runs(small_run, small_data, tmp_path_factory):
    data, folder = small_data(40), tmp_path_factory.mktemp("choice")
    return {name: small_run(folder / name, model, data, capture(**own)) for name, own in
            {"all": {}, "last": {"layers": 2}, "named": {"layers": ("[35]",)}}.items()}  # fmt: skip


def test_patterns_and_numbers_choose_layers():
    assert list(chosen_layers(model())) == ["1", "3", "5"]
    assert list(chosen_layers(model(), 2)) == ["3", "5"] == list(chosen_layers(model(), ("[35]",)))
    assert list(chosen_layers(model(), ("5", "1"))) == ["1", "5"]
    with pytest.raises(SettingsError, match=r"capture\.layers: no layer is called 'head\.\*'; there are 1, 3, 5"):
        chosen_layers(model(), ("1", "head.*"))
    with pytest.raises(SettingsError, match=r"capture\.layers is 4, and the model has 3 layers: 1, 3, 5"):
        chosen_layers(model(), 4)


def test_all_layers_are_the_run_that_it_was_before_the_choice():
    assert "layers" not in capture().model_dump(mode="json")
    assert capture(layers=2).model_dump(mode="json")["layers"] == 2
    with pytest.raises(ValueError, match="greater than 0"):
        capture(layers=0)


@pytest.mark.parametrize("method", ["settled", "per-sample-delta"])
def test_what_is_not_captured_is_left_as_it_is_and_the_rest_is_subtracted(runs, method):
    whole, last, named = runs["all"], runs["last"], runs["named"]
    assert last.weights.keys() == whole.weights.keys()
    assert last.manifest.run["capture"]["layers"] == 2 and "layers" not in whole.manifest.run["capture"]
    found = {k: unlearn(UnlearningSettings(method=method), r.ledger, r.weights, FORGET) for k, r in runs.items()}
    captured = {"3.weight", "3.bias", "5.weight", "5.bias"}
    for run, own in ((last, found["last"]), (named, found["named"])):
        assert {name for name, _ in run.manifest.parameters} == captured
        for name, value in run.weights.items():
            assert torch.equal(own.weights[name], value) == (name not in captured), name
    assert all(torch.equal(found["last"].weights[name], found["named"].weights[name]) for name in captured)
    if method == "per-sample-delta":  # rows of a layer don't know of the others
        assert all(torch.equal(found["last"].weights[name], found["all"].weights[name]) for name in captured)
    assert found["last"].row_bytes < found["all"].row_bytes


def test_the_residual_is_that_of_the_captured_layers(runs):
    found = {name: run.manifest.residual for name, run in runs.items()}
    assert all(min(own.values()) < 1e-4 for own in found.values()), found  # of the plain sum; settled rows sum to less


def test_a_deletion_is_verified_and_its_confidence_says_what_was_not_captured(runs, tmp_path):
    run = runs["last"]
    result = unlearn(UnlearningSettings(method="settled"), run.ledger, run.weights, FORGET)
    save_weights(tmp_path / "trained", run.weights)
    save_weights(tmp_path / "published", result.weights)
    checked = verify(run.folder, tmp_path / "trained", Version(tmp_path / "published", FORGET))
    assert checked.identical and not checked.problems
    touched = result.weights | {"1.weight": result.weights["1.weight"] + 1e-3}
    save_weights(tmp_path / "touched", touched)
    assert verify(run.folder, tmp_path / "trained", Version(tmp_path / "touched", FORGET)).differing == {
        "1.weight": 288
    }
    found = confidence(run.ledger, run.weights, result.master, FORGET, ConfidenceSettings())
    assert found is not None and "only 0.202 of the weights were captured (capture.layers)" in found.reason
    assert found.verdict == "needs_repair" and found.predicted_kl < ConfidenceSettings().repair_above
    whole = runs["all"]
    result = unlearn(UnlearningSettings(method="settled"), whole.ledger, whole.weights, FORGET)
    found = confidence(whole.ledger, whole.weights, result.master, FORGET, ConfidenceSettings())
    assert found is not None and (found.verdict, found.reason) == ("good", "")


def test_adam_keeps_its_denominators_of_the_captured_layers_alone(small_run, small_data, tmp_path):
    data, own = small_data(40), capture(methods=("settled",), layers=1)
    run = small_run(tmp_path, model, data, own, optimizer=OptimizerSettings(name="adam", lr=0.01))
    result = unlearn(UnlearningSettings(method="settled"), run.ledger, run.weights, FORGET)
    changed = {name for name, value in run.weights.items() if not torch.equal(value, result.weights[name])}
    assert changed == {"5.weight", "5.bias"}
