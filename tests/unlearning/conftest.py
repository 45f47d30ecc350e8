import pytest
import torch
from torch import nn

from amnesiac.settings import CaptureSettings

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
N, BATCH, EPOCHS, FRACTION = 23, 6, 3, 0.3


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3), nn.ReLU()
        return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="session")
def train_run(small_run, small_data):
    def train(folder, optimizer=None, schedule=None, methods=METHODS, build=factory, **changes):
        capture = CaptureSettings(methods=methods, subset_fraction=FRACTION, **changes)
        rest = {"optimizer": optimizer, "schedule": schedule, "epochs": EPOCHS, "batch": BATCH, "seed": 4}
        return small_run(folder, build, small_data(N, seed=2), capture, **rest)

    return train


@pytest.fixture(scope="session")
def trained(train_run, tmp_path_factory):
    """A trained model with BatchNorm statistics and a ledger for every method; don't write to it."""
    return train_run(tmp_path_factory.mktemp("run"))
