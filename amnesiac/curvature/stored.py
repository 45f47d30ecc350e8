"""The curvature of a run, and as one file of its ledger: safetensors, no pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

from amnesiac.capture.attribution import Rule, Step
from amnesiac.capture.blocks import Block
from amnesiac.curvature.basis import Basis
from amnesiac.curvature.estimate import LayerCurvature

FILE = "curvature.safetensors"


@dataclass(frozen=True)
class RunCurvature:
    """What settling needs beside the contributions.

    blocks: the layers, in the order of the parameters;  layers: their curvature
    bounds: first step of each segment, and the number of steps
    rates:  lr / (1 - momentum) summed over the steps of each segment
    decays: what weight decay adds to z, of each layer and segment
    counts: training samples of each class
    """

    blocks: tuple[Block, ...]
    layers: tuple[LayerCurvature, ...]
    bounds: tuple[int, ...]
    rates: tuple[float, ...]
    decays: tuple[tuple[float, ...], ...]
    counts: tuple[int, ...]

    @property
    def output_layer(self) -> int:
        """The last layer that is a linear map."""
        return max((k for k, block in enumerate(self.blocks) if block.matrix is not None), default=-1)

    def to_bytes(self, exact: bool = False) -> bytes:
        """One safetensors file; eigenvalues as bfloat16 unless `exact`: three digits are more than their noise."""
        blocks = json.dumps([block.to_json() for block in self.blocks]).encode()
        tensors: dict[str, Tensor] = {
            "bounds": torch.tensor(self.bounds),
            "rates": torch.tensor(self.rates, dtype=torch.float64),
            "decays": torch.tensor(self.decays, dtype=torch.float64),
            "counts": torch.tensor(self.counts),
            "blocks": torch.frombuffer(bytearray(blocks), dtype=torch.uint8),
        }
        for k, layer in enumerate(self.layers):
            own = {"left": layer.basis.left, "right": layer.basis.right, "root": layer.basis.root}
            own |= {"total": layer.total if exact else layer.total.bfloat16(), "by_class": layer.by_class}
            own |= {"pace": torch.tensor(layer.pace, dtype=torch.float64)}
            tensors |= {f"{k}.{name}": value for name, value in own.items() if value is not None}
        return save({name: value.contiguous() for name, value in tensors.items()})


def from_bytes(content: bytes) -> RunCurvature:
    """The inverse of `to_bytes`."""
    tensors = load(content)
    blocks = tuple(Block.from_json(b) for b in json.loads(tensors["blocks"].numpy().tobytes()))
    layers = tuple(
        LayerCurvature(
            Basis(tensors.get(f"{k}.left"), tensors.get(f"{k}.right"), tensors.get(f"{k}.root")),
            tensors[f"{k}.total"].float(),
            tensors.get(f"{k}.by_class"),
            tuple(tensors[f"{k}.pace"].tolist()),
        )
        for k in range(len(blocks))
    )
    bounds, rates, counts = (tuple(tensors[name].tolist()) for name in ("bounds", "rates", "counts"))
    return RunCurvature(blocks, layers, bounds, rates, tuple(map(tuple, tensors["decays"].tolist())), counts)


def segment_rates(rule: Rule, steps: Sequence[Step], bounds: Sequence[int]) -> tuple[float, ...]:
    """Effective learning rate of each segment: the sum of lr / (1 - momentum) over its steps."""
    sums = (sum(step.lr for step in steps[a:b]) for a, b in zip(bounds, bounds[1:], strict=False))
    return tuple(total / (1.0 - rule.momentum) for total in sums)
