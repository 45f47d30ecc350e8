"""The curvature of a run as one file of its ledger: safetensors, no pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor

from amnesiac.capture.attribution import Rule, Step
from amnesiac.capture.blocks import Block
from amnesiac.curvature.estimate import LayerCurvature
from amnesiac.curvature.whitening import Whitening

FILE = "curvature.safetensors"


@dataclass(frozen=True)
class RunCurvature:
    """What settling needs beside the contributions.

    blocks:      the layers, in the order of the parameters
    layers:      their curvature
    whitenings:  by segment and layer under Adam, None under SGD
    rates:       lr / (1 - momentum) summed over the steps of each segment
    counts:      training samples of each class
    """

    blocks: tuple[Block, ...]
    layers: tuple[LayerCurvature, ...]
    whitenings: tuple[tuple[Whitening, ...], ...] | None
    rates: tuple[float, ...]
    counts: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """One safetensors file; eigenvalues as bfloat16, whose three digits are more than an estimate's noise."""
        blocks = json.dumps([block.to_json() for block in self.blocks]).encode()
        tensors: dict[str, Tensor] = {
            "rates": torch.tensor(self.rates, dtype=torch.float64),
            "counts": torch.tensor(self.counts),
            "blocks": torch.frombuffer(bytearray(blocks), dtype=torch.uint8),
        }  # fmt: skip
        for k, layer in enumerate(self.layers):
            tensors[f"{k}.eigenvalues"] = layer.eigenvalues.bfloat16()
            if layer.q_out is not None and layer.q_in is not None:
                tensors |= {f"{k}.q_out": layer.q_out.contiguous(), f"{k}.q_in": layer.q_in.contiguous()}
            if self.whitenings is not None:
                tensors[f"{k}.root"] = torch.stack([segment[k].root for segment in self.whitenings])
        return save({name: value.contiguous() for name, value in tensors.items()})


def from_bytes(content: bytes) -> RunCurvature:
    """The inverse of `to_bytes`."""
    tensors = load(content)
    blocks = tuple(Block.from_json(b) for b in json.loads(tensors["blocks"].numpy().tobytes()))
    layers = tuple(
        LayerCurvature(tensors.get(f"{k}.q_out"), tensors.get(f"{k}.q_in"), tensors[f"{k}.eigenvalues"].float())
        for k in range(len(blocks))
    )
    whitenings = None
    if "0.root" in tensors:
        roots = [tensors[f"{k}.root"] for k in range(len(blocks))]
        segments = range(len(roots[0]))
        whitenings = tuple(tuple(Whitening(root[s], None, None) for root in roots) for s in segments)
    rates, counts = tensors["rates"].tolist(), tensors["counts"].tolist()
    return RunCurvature(blocks, layers, whitenings, tuple(rates), tuple(counts))


def segment_rates(rule: Rule, steps: Sequence[Step], segments: int) -> tuple[float, ...]:
    """Effective learning rate of each of `segments` equal parts of the run: sum of lr / (1 - momentum)."""
    rates = np.array([step.lr for step in steps]).reshape(segments, -1).sum(1) / (1.0 - rule.momentum)
    return tuple(float(rate) for rate in rates)


def mean_preconditioners(values: npt.NDArray[np.float32], segments: int) -> list[Tensor]:
    """Adam's P averaged over each of `segments` equal parts of the run, from `[steps, P]`."""
    parts = np.split(values, segments)
    return [torch.from_numpy(np.asarray(part.mean(0))) for part in parts]
