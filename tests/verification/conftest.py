"""Tiny runs with settled rows of every form, and what a deletion publishes of them."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from amnesiac.hashing import hash_tensors
from amnesiac.keys import LocalKeyStore
from amnesiac.ledger import open_ledger
from amnesiac.models import load_weights, save_weights
from amnesiac.settings import (
    CaptureSettings,
    CurvatureSettings,
    ModelSettings,
    OptimizerSettings,
    SettledSettings,
    TrainingSettings,
    UnlearningSettings,
)
from amnesiac.training import CapturePlan, RunSpec, train_with_capture
from amnesiac.unlearning import ledgers_for, unlearn
from amnesiac.verification import Version, verify

N, CLASSES = 48, 3
SAMPLES, CLASS = (5, 1, 40, 16), tuple(range(1, N, CLASSES))
SETTLED = UnlearningSettings(method="settled")


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Project:
    """A folder with a ledger and the trained model."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def original(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def keys(self) -> LocalKeyStore | None:
        """The key store beside an encrypted ledger."""
        return LocalKeyStore(self.folder / "keys") if (self.folder / "keys").exists() else None

    def publish(self, forget) -> Version:
        """Unlearn, and write weights and correction as the pipeline does."""
        ledger, folder = open_ledger(self.ledger, keys=self.keys), self.folder / "unlearned"
        result = unlearn(SETTLED, ledger, load_weights(self.original), forget)
        save_weights(folder / "model.safetensors", result.weights)
        ids = tuple(f"s{i}" for i in forget)
        facts = ids, ledger.manifest.run_id, hash_tensors(result.weights)
        version = Version(folder / "model.safetensors", tuple(forget), *facts)
        if result.correction is None:
            return version
        save_weights(folder / "correction.safetensors", result.correction)
        said = folder / "correction.safetensors", hash_tensors(result.correction)
        return replace(version, correction=said[0], correction_sha256=said[1])

    def verify(self, version=None):
        return verify(self.ledger, self.original, version or Version(self.original))

    @property
    def row_bytes(self) -> int:
        return int(json.loads((self.ledger / "rows.zarr/settled/zarr.json").read_text())["shape"][1])

    @property
    def shard(self) -> Path:
        """The one file that holds the settled rows, one after another (all samples were captured: in their order)."""
        [file] = [path for path in (self.ledger / "rows.zarr/settled/c").rglob("*") if path.is_file()]
        return file

    def read_row(self, position: int) -> bytes:
        return self.shard.read_bytes()[position * self.row_bytes : (position + 1) * self.row_bytes]

    def write_row(self, position: int, row: bytes) -> None:
        content = self.shard.read_bytes()
        start = position * self.row_bytes
        self.shard.write_bytes(content[:start] + row + content[start + len(row) :])

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder)
        return Project(folder)


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3), nn.ReLU()
        return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def train(
    folder: Path, form: SettledSettings, methods=("settled",), optimizer=None, classes=None, keys=None
) -> Project:
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(N) % CLASSES
    data = Data(torch.randn(N, 1, 6, 6, generator=generator) + labels[:, None, None, None], labels)
    curvature = CurvatureSettings(smallest_sample=16)
    capture = CaptureSettings(methods=methods, settled=form, curvature=curvature, classes=classes)
    training = TrainingSettings(epochs=3, batch_size=8, optimizer=optimizer or OptimizerSettings(momentum=0.9))
    ids = [f"s{i}" for i in range(N)]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch", keys)
    result, manifest = train_with_capture(RunSpec(4, ModelSettings(), training, "data"), factory, data, plan)
    save_weights(folder / "model.safetensors", result.weights, {"run_id": manifest.run_id})
    shutil.rmtree(folder / "scratch")
    return Project(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Project:
    """Low-rank rows of 8 bits, as is the default; don't write to it."""
    return train(tmp_path_factory.mktemp("low-rank"), SettledSettings())


@pytest.fixture
def project(trained, tmp_path) -> Project:
    """A copy to damage."""
    return trained.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def train_form(tmp_path_factory):
    return lambda form, **changes: train(tmp_path_factory.mktemp("form"), form, **changes)
