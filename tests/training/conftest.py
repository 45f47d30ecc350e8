from dataclasses import dataclass

import pytest
import torch
from torch import nn

from amnesiac.settings import ModelSettings, TrainingSettings
from amnesiac.training.spec import RunSpec


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


def made_data(n=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return Data(torch.randn(n, 2, 4, 4, generator=generator, dtype=dtype), torch.arange(n) % 3)


def factory(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
        return nn.Sequential(*layers).to(dtype)


def made_spec(seed=5, **training):
    return RunSpec(seed, ModelSettings(), TrainingSettings(**{"epochs": 2, "batch_size": 4} | training), "data")


@pytest.fixture
def data():
    return made_data()


@pytest.fixture
def data_of():
    return made_data


@pytest.fixture
def build():
    return factory


@pytest.fixture
def spec_of():
    return made_spec
