"""A training run that keeps what peers start from, and whose ledger has rows only for what will be forgotten.

Sealing rows of all samples takes several trainings; an ensemble of 32 needs those of the forget sets alone. Training,
curvature, pilot deletions and rows are those of `amnesiac.training`, and so are their bits (tests/benchmarks).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amnesiac.capture.attribution import rate_weights
from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool, read_spool
from amnesiac.curvature import Pilot, Probe, measure
from amnesiac.ledger import open_ledger
from amnesiac.ledger.base import to_grid
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.settling import Settling
from amnesiac.ledger.visits import StepWeights, optimizer_weights, segment_sums, visit_table
from amnesiac.models import build_model
from amnesiac.progress import silent
from amnesiac.settings import ModelSettings
from amnesiac.training import RunSpec, TrainingResult
from amnesiac.training.batches import batches_per_epoch
from amnesiac.training.loop import Loop, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer
from amnesiac.unlearning import ledgers_for
from amnesiac.unlearning.peers import FinalCurvature, Start, diagonal_fisher, final_curvature
from benchmarks.compare_cases import Data
from benchmarks.forgetting_cases import Config, Job
from benchmarks.forgetting_run import Trained

Weights = Mapping[str, Tensor]
CURVATURE_SAMPLES = 1000


@dataclass(frozen=True)
class Plain:
    """A trained model and what peers may have kept of its training.

    checkpoints: weights after each epoch;  middles: in the middle of each (where recorded)
    """

    config: Config
    spec: RunSpec
    data: Data
    result: TrainingResult
    checkpoints: dict[int, Weights]
    middles: tuple[Weights, ...] = ()

    @property
    def factory(self) -> Callable[[], nn.Module]:
        """The model before training."""
        return factory_of(self.config, self.data, self.spec.seed)

    def start(self, forget: Sequence[int]) -> Start:
        """What a peer starts from to forget some samples."""
        result = self.result
        return Start(
            self.spec, self.factory, result.weights, result.initial, self.data.train, forget, self.spec.seed,
            self.checkpoints, self._curvature, self._importances,
        )  # fmt: skip

    @cached_property
    def _curvature(self) -> FinalCurvature:
        samples = min(CURVATURE_SAMPLES, len(self.data.train))
        return final_curvature(self.factory, self.result.weights, self.data.train, samples, self.spec.seed)

    @cached_property
    def _importances(self) -> dict[str, Tensor]:
        everyone = range(len(self.data.train))
        return diagonal_fisher(self.factory, self.result.weights, self.data.train, everyone)


def factory_of(config: Config, data: Data, seed: int) -> Callable[[], nn.Module]:
    """The model as a seed initialises it."""
    channels, height, width = (int(k) for k in data.train.inputs.shape[1:])
    return partial(
        build_model, ModelSettings(factory=config.model), (channels, height, width), data.classes, seed
    )  # fmt: skip


def spec_of(config: Config, data: Data, seed: int) -> RunSpec:
    """What decides a run's weights."""
    return RunSpec(seed, ModelSettings(factory=config.model), config.training, data.content)


def train(config: Config, data: Data, seed: int, spool: Path | None = None) -> Plain:
    """Train on all samples, with every contribution spooled where `spool` is given (middles are kept then)."""
    spec, factory = spec_of(config, data, seed), factory_of(config, data, seed)
    model, checkpoints, middles = factory(), dict[int, Weights](), list[Weights]()
    initial, optimizer = weights_of(model), build_optimizer(config.training.optimizer, model.parameters())
    capture, started = config.capture, time.process_time()
    recorder = Recorder(model, optimizer, Spool(spool), rank=capture.rank, dtype=capture.dtype) if spool else None
    loop = Loop(config.training, seed, data.train, np.zeros(len(data.train), bool))
    run_epochs(
        loop, model, optimizer, range(config.training.epochs), recorder,
        lambda record: checkpoints.update({record.epoch: weights_of(model)}),
        lambda epoch: middles.append(weights_of(model)),
    )  # fmt: skip
    if recorder:
        recorder.close()
    weights = to_grid(weights_of(model)) if recorder else weights_of(model)
    result = TrainingResult(weights, initial, (), time.process_time() - started)
    return Plain(config, spec, data, result, checkpoints, tuple(middles))


@contextmanager
def recorded(
    config: Config, data: Data, seed: int, wanted: Sequence[int], folder: Path
) -> Iterator[tuple[Plain, Trained]]:
    """A run with a ledger of the samples `wanted` alone; spool and ledger are in `folder`."""
    run = train(config, data, seed, folder / "spool")
    captured = np.zeros(len(data.train), bool)
    captured[list(wanted)] = True
    ids, epochs = data.train.sample_ids, config.training.epochs
    facts = Run(
        run.spec.run_id(config.capture), run.spec.facts(), ids, data.train.subject_ids, run.result.initial,
        run.result.weights, epochs, captured, data.train.labels.numpy(), settling=_settling(run, folder / "spool"),
    )  # fmt: skip
    seal(folder / "spool", folder / "ledger", facts, ledgers_for(config.capture))
    ledger = open_ledger(folder / "ledger", run_id=facts.run_id)
    with read_spool(folder / "spool") as spool:
        yield (
            run,
            Trained(
                Job(config, seed, config.cases), run.spec, data.train, data.test, data.truth, data.classes, run.result,
                ledger, spool, optimizer_weights(spool),
            ),
        )  # fmt: skip


def _settling(run: Plain, folder: Path) -> Settling:
    """Curvature, and kappa by pilot deletions, as sealing in the pipeline has them."""
    capture, n = run.config.capture.curvature, len(run.data.train)
    chosen = _segment_bounds(run.config.training.epochs, capture.segments)
    snapshots = [run.middles[(a + b - 1) // 2] for a, b in pairwise(chosen)]
    samples = min(max(capture.smallest_sample, round(capture.fraction * n)), capture.largest_sample)
    inputs, labels = run.data.train.inputs, run.data.train.labels
    probe = Probe(
        run.factory, snapshots, inputs, labels, int(labels.max()) + 1, samples, capture.largest_factor, run.spec.seed
    )  # fmt: skip
    steps, decay = batches_per_epoch(n, run.spec.training.batch_size), run.spec.training.optimizer.weight_decay
    curvature = measure(folder, probe, [steps * epoch for epoch in chosen], capture.clip_quantile, decay)
    with read_spool(folder) as spool:
        table, rates = visit_table(spool.index), StepWeights(rate_weights(spool.layout.rule, spool.steps))

        def sums(rows: npt.NDArray[np.int64]) -> list[torch.Tensor]:
            return segment_sums(spool, table, rates, np.flatnonzero(np.isin(table.samples, rows)), curvature.bounds)

        few = Pilot(probe, curvature, run.result.weights, sums, table.samples).few(None, silent)
    names = [name for block in curvature.blocks for name in block.parameters]
    path = sum(float((run.result.weights[k] - run.result.initial[k]).square().sum()) for k in names) ** 0.5
    return Settling(curvature, few, few, path)


def _segment_bounds(epochs: int, segments: int) -> list[int]:
    """First epoch of each segment and the number of epochs."""
    return [*range(0, epochs, -(-epochs // segments)), epochs]
