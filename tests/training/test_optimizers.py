"""Learning rates at hand-computed points, and optimisers that are what the settings say."""

import pytest
import torch
from torch import nn

from amnesiac.settings import OptimizerSettings, ScheduleSettings
from amnesiac.training.optimizers import build_optimizer, learning_rate

STEP = {"name": "step", "every": 2, "gamma": 0.1}


@pytest.mark.parametrize(
    ("schedule", "epoch", "rate"),
    [
        ({}, 0.0, 0.4),
        ({}, 9.9, 0.4),
        (STEP, 0.0, 0.4),
        (STEP, 1.99, 0.4),
        (STEP, 2.0, 0.04),
        (STEP, 5.5, 0.004),
        ({"name": "cosine"}, 0.0, 0.4),
        ({"name": "cosine"}, 2.5, 0.4 * 0.8535533905932737),
        ({"name": "cosine"}, 5.0, 0.2),
        ({"name": "cosine"}, 10.0, 0.0),
        ({"warmup_epochs": 2.0}, 0.0, 0.0),
        ({"warmup_epochs": 2.0}, 0.5, 0.1),
        ({"warmup_epochs": 2.0}, 2.0, 0.4),
        ({"warmup_epochs": 2.0}, 7.0, 0.4),
        (STEP | {"warmup_epochs": 4.0}, 3.0, 0.03),
        ({"name": "cosine", "warmup_epochs": 10.0}, 5.0, 0.1),
    ],
)
def test_learning_rate(schedule, epoch, rate):
    assert learning_rate(0.4, ScheduleSettings(**schedule), epoch, 10) == pytest.approx(rate, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        (
            {"lr": 0.3, "momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
            torch.optim.SGD,
            {"lr": 0.3, "momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
        ),
        (
            {"name": "adam", "lr": 0.3, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2},
            torch.optim.Adam,
            {"lr": 0.3, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.2},
        ),
        ({"name": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    ],
)
def test_build_optimizer(settings, kind, expected):
    optimizer = build_optimizer(OptimizerSettings(**settings), nn.Linear(2, 2).parameters())
    assert type(optimizer) is kind
    assert expected.items() <= optimizer.param_groups[0].items()
    assert optimizer.param_groups[0]["foreach"] is False
