import shutil

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.settings import CaptureSettings

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")


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


@pytest.fixture(scope="session")
def train_run(small_run, small_data):
    def train(folder, optimizer=None, **changes):
        return small_run(
            folder, factory, small_data(37), CaptureSettings(methods=METHODS, **changes), optimizer=optimizer
        )

    return train


@pytest.fixture(scope="session")
def pristine(train_run, tmp_path_factory):
    """A trained tiny model and its sealed ledger; don't write to it."""
    return train_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def ledger_copy(pristine, tmp_path):
    """A copy to damage."""
    return shutil.copytree(pristine.folder, tmp_path / "ledger")


@pytest.fixture
def generator():
    return np.random.default_rng(0)
