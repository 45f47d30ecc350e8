"""Optimisers and learning-rate schedules from settings; the rate is a function of the step, so a resumed run needs
no state.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from amnesiac.settings import OptimizerSettings, ScheduleSettings


def build_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """torch.optim's SGD, Adam or AdamW (single-tensor code path: its arithmetic doesn't depend on tensor grouping)."""
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            foreach=False,
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        foreach=False,
    )


def learning_rate(base: float, settings: ScheduleSettings, epoch: float, epochs: int) -> float:
    """The rate at a (fractional) epoch: `base` times warm-up times constant, step or cosine factor."""
    warmup = min(1.0, epoch / settings.warmup_epochs) if settings.warmup_epochs > 0 else 1.0
    if settings.name == "step":
        return base * warmup * settings.gamma ** int(epoch // settings.every)
    if settings.name == "cosine":
        return base * warmup * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
    return base * warmup
