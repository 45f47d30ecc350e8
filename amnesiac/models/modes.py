"""Evaluation mode for a while, without losing which parts of a model were in training mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode; afterwards every module has its former mode, also after an error.

    Module by module, because a user may have frozen a part (`model.backbone.eval()`) of a training model.
    """
    former = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in former:
            module.training = training
