"""The 2024 paper's methods for models whose rows don't fit on a disk: what their rows of a forget set add up to.

Whole-batch updates of ResNet-18 take 45 MB a step, subset rows 4.5 MB a sample at p = .1, and a ledger has to keep
those of all steps and samples. To judge a method the sum over one forget set is enough. The run is trained once more
and the sums are taken on the way: each forgotten sample's gradient by a backward pass of its own, in float32 (a
ledger's would be of low rank for such models), and each update of a step that saw one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.capture.coordinates import subset
from amnesiac.errors import AmnesiacError, InputError
from amnesiac.ledger.codecs import SubsetRows
from amnesiac.training import RunSpec
from amnesiac.training.loop import Loop, TrainingData, run_epochs
from amnesiac.training.optimizers import build_optimizer

UPDATES = {"amnesiac_batch": 1.0, "layerwise_p10": 0.1}
"""Methods that take whole steps back: name in the rows -> fraction of the coordinates, the same for all steps."""
SUBSETS = {"paper_p20": 0.2, "paper_p10": 0.1, "paper_p5": 0.05}
"""The paper's own, as described (factor 1): fraction of the coordinates, drawn for each sample."""
NEAR = 0.1
"""Largest distance of the two runs' ends that is accepted, over the length of the path."""

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Replayed:
    """What a method adds to the weights, float64 by parameter name, and what its rows would take a training sample.

    apart: how far the training once more ended from the run that is judged, over the length of that run's path
    """

    delta: Mapping[str, Tensor]
    bytes_per_sample: float
    apart: float


def replay(
    spec: RunSpec, factory: Callable[[], nn.Module], data: TrainingData, forget: Sequence[int],
    weights: Mapping[str, Tensor],
) -> dict[str, Replayed]:  # fmt: skip
    """Train as `spec` says, once more, and sum what each method would have stored of `forget` and adds to the weights.

    weights: where the original run ended. Capture changes the last bits of some gradients, and training magnifies that:
    raises AmnesiacError where this run ends further from it than `NEAR`, as its sums would then be another run's.
    Raises InputError for a run whose samples' gradients can't be taken one by one afterwards.
    """
    model = factory().to(spec.training.device)
    refuse_dependent(spec, model)
    loop = Loop(spec.training, spec.seed, data, np.zeros(len(data.labels), bool), "replay")
    optimizer = build_optimizer(spec.training.optimizer, model.parameters())
    sums = Sums(model, data, forget)
    start, end = sums.weights(), torch.cat([weights[name].flatten() for name in sums.names])
    optimizer.register_step_pre_hook(lambda *_: sums.before_step())
    optimizer.register_step_post_hook(lambda *_: sums.after_step())
    run_epochs(loop, model, optimizer, range(spec.training.epochs), recorder=sums)
    apart = float((sums.weights() - end).norm()) / max(float((end - start).norm()), 1e-30)
    if apart > NEAR:
        raise AmnesiacError(
            f"training once more ended {apart:.2g} of the path away from the run that is judged, so its sums would be "
            "another run's: the same threads, library versions and settings are needed"
        )
    steps = loop.steps_per_epoch * spec.training.epochs
    rows = {name: steps / len(data.labels) if name in UPDATES else 1.0 for name in (*SUBSETS, *UPDATES)}
    return {name: Replayed(sums.delta(name), sums.row_bytes(name) * own, apart) for name, own in rows.items()}


def refuse_dependent(spec: RunSpec, model: nn.Module) -> None:
    """Raises InputError naming what makes a sample's gradient depend on more than the sample and the weights."""
    training = spec.training
    found = {
        "training.micro_batch": training.micro_batch is not None,
        "training.processes": training.processes > 1,
        "training.precision": training.precision != "float32",
        "training.augment": training.augment.shift > 0 or training.augment.flip,
        "BatchNorm": any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()),
    }
    if named := [name for name, there in found.items() if there]:
        raise InputError(
            f"the paper's methods can't be summed by training once more with {', '.join(named)}: leave out"
        )


class Sums:
    """A recorder of the training loop that keeps only sums over the samples `forget` (positions in `data`)."""

    def __init__(self, model: nn.Module, data: TrainingData, forget: Sequence[int]) -> None:
        """Nothing is summed yet."""
        self._model, self._data, self._forget = model, data, {*forget}
        own = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names, self._parameters = [name for name, _ in own], [p for _, p in own]
        self._shapes: Shapes = [tuple(p.shape) for p in self._parameters]
        numel = sum(p.numel() for p in self._parameters)
        self._updates = torch.zeros(numel, dtype=torch.float64)
        self._subsets = {name: torch.zeros(numel, dtype=torch.float64) for name in SUBSETS}
        self._masks: dict[tuple[str, int], npt.NDArray[np.uint8]] = {}
        self._seen, self._before = False, torch.empty(0)

    @contextmanager
    def batch(self, rows: npt.NDArray[np.int64]) -> Iterator[None]:
        """One forward and backward pass over a whole mini-batch; its forgotten samples' gradients are added."""
        yield
        for row in rows.tolist():
            if row in self._forget:
                self._seen = True
                self._add(row, self._gradient(row, len(rows)))

    def summed(self) -> None:
        """One process: there is nothing to sum."""

    def before_step(self) -> None:
        """Keep the weights where the step is one that a whole-batch method takes back."""
        if self._seen:
            self._before = self.weights()

    def after_step(self) -> None:
        """Add what takes such a step back."""
        if self._seen:
            self._updates += (self._before - self.weights()).double()
        self._seen = False

    def weights(self) -> Tensor:
        """The model's weights as they are, flat `[P]`."""
        return torch.cat([p.detach().flatten() for p in self._parameters]).cpu()

    def delta(self, name: str) -> dict[str, Tensor]:
        """What a method adds to the weights, by parameter name."""
        if name in SUBSETS:
            return self._by_parameter(self._subsets[name])
        kept = torch.zeros_like(self._updates)
        at = torch.from_numpy(subset(self._shapes, UPDATES[name], "updates"))
        kept[at] = self._updates[at]
        return self._by_parameter(kept)

    def row_bytes(self, name: str) -> int:
        """Bytes of a row of a method."""
        fraction = UPDATES[name] if name in UPDATES else SUBSETS[name]
        return SubsetRows(tuple(self._shapes), fraction, shared=name in UPDATES).row_bytes

    def _gradient(self, row: int, scheduled: int) -> Tensor:
        """A sample's share of the mini-batch's gradient, flat `[P]`."""
        device = self._parameters[0].device
        logits = self._model(self._data.inputs[row : row + 1].to(device))
        loss = F.cross_entropy(logits, self._data.labels[row : row + 1].to(device)) / scheduled
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self._parameters)]).cpu()

    def _add(self, row: int, gradient: Tensor) -> None:
        for name, total in self._subsets.items():
            total += gradient * self._mask(name, row)

    def _mask(self, name: str, row: int) -> Tensor:
        """1 where a sample's row keeps a coordinate, `[P]`; drawing it takes longer than unpacking it again."""
        numel = len(self._updates)
        if (name, row) not in self._masks:
            kept = np.zeros(numel, bool)
            kept[subset(self._shapes, SUBSETS[name], row)] = True
            self._masks[name, row] = np.packbits(kept)
        return torch.from_numpy(np.unpackbits(self._masks[name, row], count=numel))

    def _by_parameter(self, total: Tensor) -> dict[str, Tensor]:
        parts = torch.split(total, [p.numel() for p in self._parameters])
        return {n: part.view(shape) for n, part, shape in zip(self.names, parts, self._shapes, strict=True)}
