import pytest
import torch

from amnesiac.capture.blocks import Block
from amnesiac.curvature import Basis, LayerCurvature, RunCurvature


def orthonormal(size, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]


def made_run(layers, rates, decays=None, counts=(5, 3)):
    """A run's curvature of linear layers (last: output) and layers without a matrix form, one step a segment."""
    blocks = tuple(
        Block(f"{k}", (f"{k}.weight",), (shape,), shape if len(shape) == 2 else None, None)
        for k, shape in enumerate(tuple(layer.total.shape[1:]) for layer in layers)
    )
    decays = decays or tuple((0.0,) * len(rates) for _ in layers)
    return RunCurvature(blocks, tuple(layers), tuple(range(len(rates) + 1)), tuple(rates), decays, counts)


def made_layer(segments=3, classes=2, seed=0, whitened=False):
    """A layer of 3 x 4 weights in a basis that isn't trivial, with its part by class."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.rand(segments, 3, 4, generator=generator, dtype=torch.float64) + 0.2
    by_class = torch.rand(segments, classes, 3, 4, generator=generator, dtype=torch.float64) * total[:, None]
    left, right, pace = orthonormal(3, seed + 1), orthonormal(4, seed + 2), torch.ones(segments)
    if whitened:
        left = left * (torch.rand(3, 1, generator=generator) + 0.5)
        right = right * (torch.rand(4, 1, generator=generator) + 0.5)
        pace = torch.rand(segments, generator=generator) + 0.5
    return LayerCurvature(Basis(left, right), total, by_class, tuple(pace.tolist()))


@pytest.fixture(scope="session")
def curvature_of():
    return made_run


@pytest.fixture(scope="session")
def layer_of():
    return made_layer
