from dataclasses import dataclass

import pytest
import torch
from torch import nn

from amnesiac.ledger.sealed import open_ledger
from amnesiac.settings import CaptureSettings, ModelSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from amnesiac.training.run import CapturePlan, train_with_capture
from amnesiac.training.spec import RunSpec
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
N, BATCH, EPOCHS, FRACTION = 23, 6, 3, 0.3


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Trained:
    spec: RunSpec
    data: Data
    weights: dict
    initial: dict
    ledger: object
    parameters: tuple


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3), nn.ReLU()
        return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))


def train(folder, optimizer=None, schedule=None, methods=METHODS, build=factory, **changes):
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(N) % 3
    data = Data(torch.randn(N, 1, 6, 6, generator=generator) + labels[:, None, None, None], labels)
    capture = CaptureSettings(methods=methods, subset_fraction=FRACTION, **changes)
    training = TrainingSettings(
        epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer or OptimizerSettings(momentum=0.9),
        schedule=schedule or ScheduleSettings(),
    )  # fmt: skip
    spec, ids = RunSpec(4, ModelSettings(), training, "data"), [f"s{i}" for i in range(N)]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")
    result, _ = train_with_capture(spec, build, data, plan)
    parameters = tuple(name for name, _ in build().named_parameters())
    return Trained(spec, data, result.weights, result.initial, open_ledger(folder / "ledger"), parameters)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A trained model with BatchNorm statistics and a ledger for every method; don't write to it."""
    return train(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def train_run():
    return train
