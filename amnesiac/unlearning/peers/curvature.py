"""Curvature of the training loss at the final weights, in EK-FAC form: what one Newton step needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.capture.blocks import Block, plan_block
from amnesiac.capture.hooks import GradientTap
from amnesiac.curvature import LayerCurvature, Probe, estimate
from amnesiac.curvature.whitening import unit
from amnesiac.training.loop import TrainingData

LARGEST_FACTOR = 2048


@dataclass(frozen=True)
class FinalCurvature:
    """blocks: the layers;  layers: basis and eigenvalues (mean over the training samples) of each, one segment."""

    blocks: tuple[Block, ...]
    layers: tuple[LayerCurvature, ...]


def final_curvature(
    factory: Callable[[], nn.Module], weights: Mapping[str, Tensor], data: TrainingData, samples: int, seed: int
) -> FinalCurvature:
    """EK-FAC of the true Fisher matrix at `weights`, from `samples` drawn training samples; on the CPU."""
    blocks = blocks_of_model(factory, weights, data)
    classes = int(data.labels.max()) + 1
    probe = Probe(factory, [weights], data.inputs, data.labels, classes, samples, LARGEST_FACTOR, seed)
    return FinalCurvature(blocks, tuple(estimate(probe, blocks, [unit(block, 1) for block in blocks])))


def blocks_of_model(
    factory: Callable[[], nn.Module], weights: Mapping[str, Tensor], data: TrainingData
) -> tuple[Block, ...]:
    """Each layer's parameters as capture lays them out, learnt from the gradients of two samples."""
    model = factory().eval()
    model.load_state_dict(dict(weights))
    tap = GradientTap(model)
    tap.start()
    F.cross_entropy(model(data.inputs[:2]), data.labels[:2], reduction="sum").backward()  # type: ignore[no-untyped-call]
    gradients = tap.take()
    tap.remove()
    return tuple(plan_block(name, tap.layers[name], own, None) for name, own in gradients.items())


def flat_gradient(block: Block, gradients: Mapping[str, Tensor]) -> Tensor:
    """A layer's gradient, of `gradients` by parameter name, as `[numel]`."""
    return torch.cat([gradients[name].flatten() for name in block.parameters])
