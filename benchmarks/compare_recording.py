"""The training runs of `amnesiac bench compare`: what peers start from, and a ledger for settled deltas.

The ledger has rows only for what will be forgotten: rows of all samples would take several trainings, an ensemble of 32
needs those of the forget sets alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from amnesiac.capture.spool import read_spool
from amnesiac.ledger import open_ledger
from amnesiac.ledger.visits import optimizer_weights
from amnesiac.models import build_model
from amnesiac.settings import ModelSettings
from amnesiac.training import CapturePlan, RunSpec, TrainingResult, train_with_capture
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

    checkpoints: weights after each epoch
    """

    config: Config
    spec: RunSpec
    data: Data
    result: TrainingResult
    checkpoints: dict[int, Weights]

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


def train(config: Config, data: Data, seed: int) -> Plain:
    """Train on all samples and keep the weights after each epoch."""
    spec, factory = spec_of(config, data, seed), factory_of(config, data, seed)
    model, checkpoints = factory(), dict[int, Weights]()
    initial, optimizer = weights_of(model), build_optimizer(config.training.optimizer, model.parameters())
    loop = Loop(config.training, seed, data.train, np.zeros(len(data.train), bool))
    run_epochs(
        loop, model, optimizer, range(config.training.epochs),
        after_epoch=lambda record: checkpoints.update({record.epoch: weights_of(model)}),
    )  # fmt: skip
    return Plain(config, spec, data, TrainingResult(weights_of(model), initial, (), 0.0), checkpoints)


@contextmanager
def recorded(config: Config, data: Data, seed: int, wanted: Sequence[int], folder: Path) -> Iterator[Trained]:
    """The same run with capture; its ledger has rows of the samples `wanted`. Spool and ledger are in `folder`."""
    spec, factory, train = spec_of(config, data, seed), factory_of(config, data, seed), data.train
    plan = CapturePlan(
        config.capture, ledgers_for(config.capture), train.sample_ids, train.subject_ids, folder / "ledger",
        folder / "scratch", only=wanted,
    )  # fmt: skip
    original, manifest = train_with_capture(spec, factory, train, plan)
    ledger = open_ledger(plan.destination, run_id=manifest.run_id)
    with read_spool(plan.scratch / "spool") as spool:
        yield Trained(
            Job(config, seed, config.cases), spec, train, data.test, data.truth, data.classes, original, ledger, spool,
            optimizer_weights(spool),
        )  # fmt: skip
