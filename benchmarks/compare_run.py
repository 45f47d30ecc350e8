"""One member of the comparison's ensembles: a training run, from which every method forgets every set."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amnesiac.evaluation import margin, predict
from amnesiac.evaluation.attacks import Relearning, relearn_steps
from amnesiac.training import RunSpec, retrain_without
from amnesiac.unlearning import unlearn
from amnesiac.unlearning.peers import PEERS, Peer
from benchmarks.compare_cases import FOLDS, SHADOW_SEED, data_of, folds_of, key_of
from benchmarks.compare_recording import Plain, factory_of, recorded, spec_of, train
from benchmarks.forgetting_baselines import added, learning_rates, visits_sum
from benchmarks.forgetting_cases import MISLABELLED, Config
from benchmarks.forgetting_run import OTHER_SEED, SETTLED, Candidate, Trained, row, yardstick

RELEARN = 1.1
"""How far above the original's loss the forget set counts as relearnt."""
RELEARN_STEPS = 200
Weights = Mapping[str, Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class Shadow:
    """A model that was trained without a fold of the samples."""

    config: Config
    round_: int
    fold: int
    data_root: Path | None

    @property
    def key(self) -> str:
        """Name in the cache."""
        return key_of("shadow", self.config, round=self.round_, fold=self.fold)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.config.name}: memorisation, round {self.round_ + 1}, fold {self.fold + 1}"

    @property
    def cost(self) -> float:
        """Seconds, roughly: they decide only the order."""
        return self.config.training.epochs * self.config.epoch_seconds


@dataclass(frozen=True)
class Member:
    """A training run and what is forgotten from it; mislabelled samples have runs of their own.

    forget:    the set of each case;  strengths: of each case, by peer
    relearned: whether relearning is measured as well
    """

    config: Config
    seed: int
    forget: Mapping[str, Sequence[int]]
    strengths: Mapping[str, Mapping[str, float]]
    relearned: bool
    data_root: Path | None

    @property
    def key(self) -> str:
        """Name in the cache."""
        facts = {"forget": dict(self.forget), "strengths": self.strengths, "relearned": self.relearned}
        return key_of("member", self.config, seed=self.seed, **facts)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.config.name}, seed {self.seed}: {', '.join(self.forget)}"

    @property
    def cost(self) -> float:
        """Seconds, roughly: they decide only the order."""
        return self.config.training.epochs * self.config.epoch_seconds * (4 + 4 * len(self.forget) + self.relearned)


def run_shadow(job: Shadow) -> list[list[float]]:
    """One list: p(label) of every training sample, by a model that wasn't trained on one fold of them."""
    torch.set_num_threads(job.config.training.threads)
    data, seed = data_of(job.config, job.data_root), SHADOW_SEED + FOLDS * job.round_ + job.fold
    left_out = folds_of(len(data.train), job.round_)[job.fold].tolist()
    factory = factory_of(job.config, data, seed)
    model = factory()
    model.load_state_dict(retrain_without(spec_of(job.config, data, seed), factory, data.train, left_out).weights)
    own = predict(model, data.train.inputs).softmax(1)[torch.arange(len(data.train)), data.train.labels]
    return [[round(float(p), 6) for p in own]]


def run_member(job: Member) -> list[Record]:
    """A record for each case and method: a row of the benchmark, the margins on the forget set, what was drawn on.

    `seconds` are CPU seconds of one thread.
    """
    torch.set_num_threads(job.config.training.threads)
    swapped = job.forget.get(MISLABELLED, ())
    data = data_of(job.config, job.data_root, swapped)
    wanted = sorted({position for positions in job.forget.values() for position in positions})
    plain = train(job.config, data, job.seed)
    with (
        tempfile.TemporaryDirectory(prefix="compare-") as folder,
        recorded(job.config, data, job.seed, wanted, Path(folder)) as run,
    ):
        return [record for case in job.forget for record in case_records(job, case, plain, run)]


def case_records(job: Member, case: str, plain: Plain, run: Trained) -> Iterator[Record]:
    """Of every method, the retrained model first."""
    forget = list(job.forget[case])
    reference = retrained(run, forget, run.spec.seed, "retrained")
    figures = yardstick(run, forget, reference.weights, case)
    inputs, labels = run.train.inputs[forget], run.train.labels[forget]
    model, how = run.factory(), relearning(run, inputs, labels)
    for one in (reference, *candidates(job.strengths[case], plain, run, forget)):
        model.load_state_dict(dict(one.weights))
        margins = margin(predict(model, inputs), labels).tolist()
        steps = relearn_steps(model, one.weights, inputs, labels, how) if job.relearned else None
        yield {**row(run, case, one, figures), "margins": margins, "relearn_steps": steps}


def candidates(
    strengths: Mapping[str, float], plain: Plain, run: Trained, forget: Sequence[int]
) -> Iterator[Candidate]:
    """All models that are judged against the retrained one."""
    yield retrained(run, forget, run.spec.seed + OTHER_SEED, "retrained_other_seed")
    yield Candidate("original", run.original.weights, 0.0)
    for name, steps in (("plain", run.optimizer), ("raw_lr", learning_rates(run.spool))):
        weights, seconds = timed(partial(subtracted, run, forget, steps))
        yield Candidate(name, weights, seconds, 4.0 * run.spool.layout.numel)
    settled, seconds = timed(lambda: unlearn(SETTLED, run.ledger, run.original.weights, forget).weights)
    yield Candidate("settled", settled, seconds, float(sum(e.row_bytes for e in run.ledger.manifest.entries.values())))
    start = plain.start(forget)
    for peer in PEERS.values():
        if peer.strengths:
            weights, seconds = timed(partial(peer.run, start, strengths[peer.name]))
            yield Candidate(peer.name, weights, seconds, kept_bytes(peer, plain))


def retrained(run: Trained, forget: Sequence[int], seed: int, name: str) -> Candidate:
    """Exact retraining with a seed."""
    spec = RunSpec(seed, run.spec.model, run.spec.training, run.spec.data_hash)
    weights, seconds = timed(lambda: retrain_without(spec, run.factory_of(seed), run.train, forget).weights)
    return Candidate(name, weights, seconds)


def subtracted(run: Trained, forget: Sequence[int], steps: Any) -> Weights:
    """The forget set's visits subtracted as they happened."""
    return added(run.original.weights, run.ledger.by_parameter(visits_sum(run.spool, steps, forget).numpy()))


def relearning(run: Trained, inputs: Tensor, labels: Tensor) -> Relearning:
    """The forget set is relearnt at the run's rate, to a little above the original's loss on it."""
    model = run.factory()
    model.load_state_dict(dict(run.original.weights))
    loss = float(torch.nn.functional.cross_entropy(predict(model, inputs), labels))
    rate = run.spec.training.optimizer.lr
    return Relearning(RELEARN * loss, lr=rate, max_steps=RELEARN_STEPS, seed=run.spec.seed)


def kept_bytes(peer: Peer, plain: Plain) -> float:
    """What was kept beside the data for a peer, over the training samples: checkpoints, curvature, importances."""
    numbers = sum(value.numel() for value in plain.result.weights.values())
    sizes = {"checkpoints": len(plain.checkpoints) * numbers, "importances": numbers}
    if "curvature" in peer.uses:
        layers = plain.start(()).curvature
        assert layers is not None
        parts = [(k.basis.left, k.basis.right, k.total) for k in layers.layers]
        sizes["curvature"] = sum(int(np.prod(p.shape)) for part in parts for p in part if p is not None)
    return 4.0 * sum(sizes.get(use, 0) for use in peer.uses) / len(plain.data.train)


def timed(work: Callable[[], Weights]) -> tuple[Weights, float]:
    """The result and the CPU seconds of this process."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started
