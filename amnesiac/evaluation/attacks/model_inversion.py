"""Model inversion: what a class looks like to a model, drawn by gradient ascent on the input.

Fredrikson et al., "Model inversion attacks that exploit confidence information" (CCS 2015). From a grey picture the
attack follows the gradient of the cost 1 - p_class + total variation. Graves et al. (2021, arXiv 2010.10981) and the
2024 per-sample paper show it before and after forgetting a class: if the class is gone, the picture must not resemble
its samples more than the retrained model's picture does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amnesiac.errors import InputError
from amnesiac.models.modes import evaluating


@dataclass(frozen=True)
class Inversion:
    """A class as the model sees it.

    image:        `[c, h, w]`, within the bounds
    confidence:   the model's probability of the class for it
    """

    image: Tensor
    confidence: float


@dataclass(frozen=True)
class InversionSearch:
    """How the picture is looked for: steps of gradient descent with momentum, within `bounds` of a pixel.

    smoothness: weight of the mean absolute difference between neighbouring pixels
    """

    steps: int = 200
    lr: float = 0.1
    momentum: float = 0.9
    smoothness: float = 0.1
    bounds: tuple[float, float] = (0.0, 1.0)


def invert_class(
    model: nn.Module, label: int, shape: tuple[int, int, int], search: InversionSearch | None = None
) -> Inversion:
    """The picture `shape` that the model takes for class `label` most; deterministic.

    The gradient is taken of log p (that of p itself vanishes where a class has been forgotten), by its sign-free
    direction: every step has the same length, so weak gradients aren't lost. Raises InputError for an unknown class.
    """
    how = search or InversionSearch()
    low, high = how.bounds
    image = torch.full((1, *shape), (low + high) / 2)
    velocity = torch.zeros_like(image)
    with evaluating(model):
        _require_class(model, image, label)
        for _ in range(how.steps):
            gradient = _gradient(model, image, label, how.smoothness)
            velocity = how.momentum * velocity + gradient / gradient.norm().clamp_min(1e-12)
            image = (image - how.lr * velocity).clamp(low, high)
        with torch.no_grad():
            confidence = float(model(image).softmax(1)[0, label])
    return Inversion(image[0], confidence)


def class_resemblance(image: Tensor, class_inputs: Tensor) -> float:
    """Pearson correlation in [-1, 1] of a picture `[c, h, w]` with the mean of a class's samples `[n, c, h, w]`.

    0 for a picture without contrast. Raises InputError for no sample.
    """
    if len(class_inputs) == 0:
        raise InputError("the class has no sample to compare with: pass some of its inputs")
    a, b = image.double().flatten(), class_inputs.double().mean(0).flatten()
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-12))


def _gradient(model: nn.Module, image: Tensor, label: int, smoothness: float) -> Tensor:
    image = image.detach().requires_grad_()
    variation = image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()
    cost = -model(image).log_softmax(1)[0, label] + smoothness * variation
    (gradient,) = torch.autograd.grad(cost, image)
    return gradient


def _require_class(model: nn.Module, image: Tensor, label: int) -> None:
    with torch.no_grad():
        classes = model(image).shape[1]
    if not 0 <= label < classes:
        raise InputError(f"there is no class {label}: the model knows classes 0 to {classes - 1}")
