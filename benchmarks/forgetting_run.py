"""One job of the forgetting benchmark: train with capture once, then forget each set with every method and retrain."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.data import Split
from amnesiac.evaluation import (
    accuracy,
    confusion,
    kl,
    mean_abs_margin_difference,
    predict,
    relative_verification_error,
)
from amnesiac.ledger import SealedLedger, open_ledger
from amnesiac.ledger.visits import StepWeights, optimizer_weights
from amnesiac.models import build_model
from amnesiac.settings import ConfidenceSettings, RepairSettings, UnlearningSettings
from amnesiac.training import RunSpec, TrainingResult, repair, retrain_without, train_with_capture
from amnesiac.unlearning import Unlearned, confidence, unlearn
from benchmarks.forgetting_baselines import (
    added,
    bytes_per_sample,
    learning_rates,
    published_delta,
    published_ledgers,
    visits_sum,
)
from benchmarks.forgetting_cases import BATCHES, CLASS, CONFUSED, MISLABELLED, TEN, Job, draw, parts_of
from benchmarks.forgetting_replay import replay
from benchmarks.forgetting_start import begin

OTHER_SEED = 1000
"""Added to a job's seed for the second retraining, whose distance from the first is the spread."""
SETTLED = UnlearningSettings(method="settled")
REPAIR = RepairSettings(epochs=0.25)

Row = dict[str, Any]
Weights = Mapping[str, Tensor]
Figures = Callable[[Weights], dict[str, float | None]]


@dataclass(frozen=True)
class Candidate:
    """A model to be judged; `extra` are further fields of its row."""

    method: str
    weights: Weights
    seconds: float
    bytes_per_sample: float = 0.0
    repaired: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a job's training run left.

    truth:      labels of the training samples before any were swapped
    optimizer:  R_t of the run (capture.attribution)
    """

    job: Job
    spec: RunSpec
    train: Split
    test: Split
    truth: Tensor
    classes: int
    original: TrainingResult
    ledger: SealedLedger
    spool: SpoolReader
    optimizer: StepWeights

    @property
    def own_bytes(self) -> float:
        """Bytes a sample of the rows that the settled method reads."""
        others = {ledger.name for ledger in published_ledgers().values()}
        return bytes_per_sample(self.ledger, [*(self.ledger.manifest.entries.keys() - others)], len(self.train))

    def factory(self) -> nn.Module:
        """The model as it was before training."""
        return self.factory_of(self.spec.seed)()

    def factory_of(self, seed: int) -> Callable[[], nn.Module]:
        """The same model initialised by another seed."""
        channels, height, width = (int(k) for k in self.train.inputs.shape[1:])
        return lambda: build_model(self.spec.model, (channels, height, width), self.classes, seed)


def run_job(job: Job) -> list[Row]:
    """The job's rows, a case after the other; computes with the threads of its settings."""
    torch.set_num_threads(job.config.training.threads)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="forgetting-") as folder, trained(job, Path(folder)) as run:
        for case in job.cases:
            if not (case == BATCHES and TEN in job.cases):  # has the models of the 10 % set, so is judged with it
                rows += case_rows(run, case)
    return rows


@contextmanager
def trained(job: Job, folder: Path) -> Iterator[Trained]:
    """Prepare the data, train with capture and seal; spool and ledger are in `folder`."""
    start = begin(job, folder)
    original, manifest = train_with_capture(start.spec, start.factory, start.train, start.plan)
    ledger = open_ledger(folder / "ledger", run_id=manifest.run_id)
    with read_spool(start.plan.scratch / "spool") as spool:
        yield Trained(
            job, start.spec, start.train, start.test, start.truth, start.classes, original, ledger, spool,
            optimizer_weights(spool),
        )  # fmt: skip


def case_rows(run: Trained, case: str) -> list[Row]:
    """Every method's row for a case, and for the 10 % set those of the ten batches that it consists of."""
    forget = draw(case, run.truth, run.spec.seed)
    references = retrainings(run, forget)
    figures = yardstick(run, forget, references[0].weights, case)
    whole = unlearn(SETTLED, run.ledger, run.original.weights, forget)
    others = [*references, *baselines(run, forget)]
    batches = ten_batches(run, forget, whole) if case == BATCHES or BATCHES in run.job.cases and case == TEN else None
    rows = []
    if case != BATCHES:
        rows += [row(run, case, one, figures) for one in (*others, *settled(run, case, forget, whole))]
    if batches:
        rows += [row(run, BATCHES, one, figures) for one in (*others, batches)]
    return rows


def retrainings(run: Trained, forget: Sequence[int]) -> list[Candidate]:
    """Retrained as the original was (the reference), and with another seed's initialisation and order."""
    found = []
    for name, offset in (("retrained", 0), ("retrained_other_seed", OTHER_SEED)):
        seed = run.spec.seed + offset
        spec = RunSpec(seed, run.spec.model, run.spec.training, run.spec.data_hash)
        result = retrain_without(spec, run.factory_of(seed), run.train, forget)
        found.append(Candidate(name, result.weights, result.seconds))
    return found


def baselines(run: Trained, forget: Sequence[int]) -> Iterator[Candidate]:
    """The original model, plain and raw_lr subtraction, and the paper's methods where they were captured."""
    weights, dense = run.original.weights, 4.0 * run.spool.layout.numel
    yield Candidate("original", weights, run.original.seconds)
    for name, steps in (("plain", run.optimizer), ("raw_lr", learning_rates(run.spool))):
        started = time.perf_counter()
        delta = run.ledger.by_parameter(visits_sum(run.spool, steps, forget).numpy())
        yield Candidate(name, added(weights, delta), time.perf_counter() - started, dense)
    for name, ledger in published_ledgers().items() if run.job.config.published else ():
        started = time.perf_counter()
        moved = added(weights, published_delta(run.ledger, ledger, forget))
        size = bytes_per_sample(run.ledger, [ledger.name], len(run.train))
        yield Candidate(name, moved, time.perf_counter() - started, size)
    if run.job.config.replayed:
        yield from replayed(run, forget)


def replayed(run: Trained, forget: Sequence[int]) -> Iterator[Candidate]:
    """The paper's methods without their rows; `seconds` are those of the training that sums them all."""
    started = time.perf_counter()
    found = replay(run.spec, run.factory, run.train, forget, run.original.weights)
    seconds = time.perf_counter() - started
    for name, one in found.items():
        moved = added(run.original.weights, one.delta)
        yield Candidate(name, moved, seconds, one.bytes_per_sample, extra={"replay_apart": one.apart})


def settled(run: Trained, case: str, forget: Sequence[int], whole: Unlearned) -> Iterator[Candidate]:
    """The settled deletion, and the same after a quarter epoch of repair where the config asks for it."""
    extra: dict[str, Any] = {
        "amnesiac_bytes_per_sample": 4.0 * run.spool.layout.numel * len(run.spool.steps) / len(run.train)
    }
    found = confidence(run.ledger, run.original.weights, whole.master, forget, ConfidenceSettings())
    assert found is not None
    extra |= {"predicted_kl": found.predicted_kl, "drift": found.drift, "verdict": found.verdict}
    yield Candidate("settled", whole.weights, whole.seconds, run.own_bytes, extra=extra)
    if case in run.job.config.repaired:
        mended = repair(run.spec, run.factory, whole.weights, run.train, forget, REPAIR)
        yield Candidate("settled", mended.weights, whole.seconds + mended.seconds, run.own_bytes, repaired=True)


def ten_batches(run: Trained, forget: Sequence[int], whole: Unlearned) -> Candidate:
    """The set in ten successive deletions, each going on from the master of the one before; `whole` is the one batch.

    Further fields: bit_identical, whether weights and master have the bits of the one batch; drift, the norm of what
    was applied over ||theta_T - theta_0||.
    """
    done: list[int] = []
    master, seconds = None, 0.0
    for part in parts_of(forget):
        last = unlearn(SETTLED, run.ledger, run.original.weights, part, before=done, master=master)
        master, seconds = last.master, seconds + last.seconds
        done += part
    same = all(same_bits(a, b) for a, b in ((last.weights, whole.weights), (last.master, whole.master)))
    start, names = run.original, [name for name, _ in run.spool.layout.parameters]
    drift = distance(last.master, start.weights, names) / distance(start.weights, start.initial, names)
    return Candidate("settled", last.weights, seconds, run.own_bytes, extra={"bit_identical": same, "drift": drift})


def row(run: Trained, case: str, one: Candidate, figures: Figures) -> Row:
    """A row of the benchmark's result, as JSON can hold it."""
    config = run.job.config
    return {
        "case": case,
        "dataset": config.data.source,
        "model": config.model,
        "optimizer": config.optimizer,
        "method": one.method,
        "seed": run.job.seed,
        **figures(one.weights),
        "seconds": one.seconds,
        "bytes_per_sample": one.bytes_per_sample,
        "repaired": one.repaired,
        **one.extra,
    }


def yardstick(run: Trained, forget: Sequence[int], retrained: Weights, case: str) -> Figures:
    """Measures weights against the retrained model: accuracies, KL and margins by set, distance, confusion.

    Labels are those that were trained on; only confusion judges by the true ones. For a class also as the 2024 paper's
    tables have it: accuracy on its test samples and on the others'.
    """
    model = run.factory().to(run.spec.training.device)
    sets = sets_of(run, forget)
    names = [name for name, _ in model.named_parameters()]
    truth = run.truth[sorted(forget)]

    def logits(weights: Weights) -> dict[str, Tensor]:
        model.load_state_dict(dict(weights))
        return {name: predict(model, inputs) for name, (inputs, _) in sets.items()}

    reference = logits(retrained)

    def figures(weights: Weights) -> dict[str, float | None]:
        own = logits(weights)
        found = {f"{name}_accuracy": accuracy(own[name], labels) for name, (_, labels) in sets.items()}
        found["kl_retain"] = kl(reference["retain"], own["retain"])
        for name in ("forget", "test"):
            found[f"kl_{name}"] = kl(reference[name], own[name])
            found[f"margin_{name}"] = mean_abs_margin_difference(own[name], reference[name], sets[name][1])
        error = relative_verification_error(weights, retrained, run.original.weights, names)
        found["relative_verification_error"] = error
        if case.startswith(CLASS):
            of_class = run.test.labels == int(case.removeprefix(CLASS))
            for name, rows in (("class", of_class), ("others", ~of_class)):
                found[f"test_{name}_accuracy"] = accuracy(own["test"][rows], run.test.labels[rows])
        if case == MISLABELLED:
            found["confusion"] = confusion(own["test"], run.test.labels, CONFUSED) + confusion(
                own["forget"], truth, CONFUSED
            )
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    return figures


def sets_of(run: Trained, forget: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and labels (as trained on) of forget, retain and test set."""
    keep = torch.ones(len(run.train), dtype=torch.bool)
    keep[list(forget)] = False
    return {
        "forget": (run.train.inputs[sorted(forget)], run.train.labels[sorted(forget)]),
        "retain": (run.train.inputs[keep], run.train.labels[keep]),
        "test": (run.test.inputs, run.test.labels),
    }


def same_bits(a: Weights, b: Weights) -> bool:
    """Whether two state dicts hold the same tensors, bit for bit."""
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def distance(a: Weights, b: Weights, names: Sequence[str]) -> float:
    """||a - b||_2 over the tensors `names`."""
    return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in names))
