import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.settings import ModelSettings, OptimizerSettings, TrainingSettings
from amnesiac.training import RunSpec, retrain_without
from amnesiac.training.loop import Loop, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer
from amnesiac.unlearning.peers import Start, diagonal_fisher, final_curvature

N, EPOCHS = 60, 5
FORGET = (3, 10, 22, 41, 50, 7)


def factory(conv=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if conv:
            layers = nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
            return nn.Sequential(*layers)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3))


def made(small_data, build, optimizer):
    """A model trained by the run's own loop, its checkpoints, and what may be kept beside them."""
    data = small_data(N, seed=5)
    spec = RunSpec(1, ModelSettings(), TrainingSettings(epochs=EPOCHS, batch_size=8, optimizer=optimizer), "data")
    model = build()
    initial, checkpoints = weights_of(model), {}
    loop = Loop(spec.training, spec.seed, data, np.zeros(N, bool))
    keep = lambda record: checkpoints.update({record.epoch: weights_of(model)})  # noqa: E731
    run_epochs(loop, model, build_optimizer(optimizer, model.parameters()), range(EPOCHS), after_epoch=keep)
    original = weights_of(model)
    return Start(
        spec, build, original, initial, data, FORGET, 2, checkpoints,
        final_curvature(build, original, data, N, 0), diagonal_fisher(build, original, data, range(N)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def start(small_data):
    """An MLP under SGD with momentum; don't write to it."""
    return made(small_data, factory, OptimizerSettings(lr=0.05, momentum=0.9))


@pytest.fixture(scope="session")
def conv_start(small_data):
    """A convolution with GroupNorm under Adam."""
    return made(small_data, partial(factory, conv=True), OptimizerSettings(name="adam", lr=0.01))


@pytest.fixture(scope="session")
def retrained(start):
    return retrain_without(start.spec, start.factory, start.data, FORGET).weights


@pytest.fixture
def changed(start):
    """The start with other fields."""
    return partial(dataclasses.replace, start)
