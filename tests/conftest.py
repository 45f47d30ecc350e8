"""Small models that are really trained with capture, for the tests of curvature, ledger and unlearning."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.sealed import SealedLedger, open_ledger
from amnesiac.settings import CaptureSettings, ModelSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from amnesiac.training import CapturePlan, RunSpec, TrainingResult, train_with_capture
from amnesiac.unlearning.unlearn import ledgers_for
from tests.postgresql import cluster, missing


@dataclass(frozen=True)
class Data:
    """A training split."""

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Trained:
    """A run: its ledger lies in `folder`, its spool and snapshots still in `scratch`."""

    spec: RunSpec
    capture: CaptureSettings
    data: Data
    folder: Path
    scratch: Path
    result: TrainingResult
    manifest: Manifest
    factory: Any

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self.result.weights

    @property
    def initial(self) -> dict[str, torch.Tensor]:
        return self.result.initial

    @cached_property
    def ledger(self) -> SealedLedger:
        return open_ledger(self.folder)

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.factory().named_parameters())


def made_data(n, classes=3, shape=(1, 6, 6), seed=0):
    """Noise around a brightness of each class."""
    labels = torch.arange(n) % classes
    noise = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    return Data(noise + labels.reshape(-1, *[1] * len(shape)), labels)


def train(
    folder,
    factory,
    data,
    capture,
    *,
    optimizer=None,
    schedule=None,
    epochs=3,
    batch=8,
    seed=0,
    keys=None,
    subjects=None,
):
    """Train with capture; spool and snapshots stay in `scratch`."""
    training = TrainingSettings(
        epochs=epochs, batch_size=batch, optimizer=optimizer or OptimizerSettings(momentum=0.9),
        schedule=schedule or ScheduleSettings(),
    )  # fmt: skip
    spec, ids = RunSpec(seed, ModelSettings(), training, "data"), [f"s{i}" for i in range(len(data.labels))]
    plan = CapturePlan(capture, ledgers_for(capture), ids, subjects or ids, folder / "ledger", folder / "scratch", keys)
    result, manifest = train_with_capture(spec, factory, data, plan)
    return Trained(spec, capture, data, folder / "ledger", folder / "scratch", result, manifest, factory)


@pytest.fixture(scope="session")
def small_run():
    """`train`."""
    return train


@pytest.fixture(scope="session")
def small_data():
    """`made_data`."""
    return made_data


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of the system's package, for as long as the tests run."""
    if why := missing():
        pytest.skip(why)
    with cluster() as found:
        yield found
