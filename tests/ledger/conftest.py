import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.settings import CaptureSettings, ModelSettings, OptimizerSettings, TrainingSettings
from amnesiac.training.run import CapturePlan, train_with_capture
from amnesiac.training.spec import RunSpec
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Trained:
    spec: RunSpec
    capture: CaptureSettings
    data: Data
    folder: object
    result: object
    manifest: object
    factory: object


def made_data(n=37, classes=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    inputs = torch.randn(n, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    return Data(inputs, labels)


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 12),
            nn.ReLU(),
            nn.Linear(12, 3),
        )


def train(tmp_path, optimizer=None, **changes):
    data = changes.pop("data", None) or made_data()
    capture = CaptureSettings(methods=METHODS, **changes)
    training = TrainingSettings(epochs=3, batch_size=8, optimizer=optimizer or OptimizerSettings(momentum=0.9))
    spec = RunSpec(0, ModelSettings(), training, "data")
    ids = [f"s{i}" for i in range(len(data.labels))]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, tmp_path / "ledger", tmp_path / "scratch")
    result, manifest = train_with_capture(spec, factory, data, plan)
    return Trained(spec, capture, data, tmp_path / "ledger", result, manifest, factory)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A trained tiny model and its sealed ledger; don't write to it."""
    return train(tmp_path_factory.mktemp("run"))


@pytest.fixture
def ledger_copy(pristine, tmp_path):
    """A copy to damage."""
    return shutil.copytree(pristine.folder, tmp_path / "ledger")


@pytest.fixture
def train_run():
    return train


@pytest.fixture
def generator():
    return np.random.default_rng(0)
