"""What the forgetting benchmark runs: data, model, optimiser, seeds, and the sets of samples that are forgotten."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amnesiac.data import Split
from amnesiac.errors import InputError
from amnesiac.hashing import hash_json
from amnesiac.ledger.manifest import library_versions
from amnesiac.seeding import numpy_generator
from amnesiac.settings import CaptureSettings, DataSettings, OptimizerSettings, TrainingSettings

ONE, TEN, BATCHES, MISLABELLED = "1% random", "10% random", "ten batches of 1%", "mislabelled 2%"
CLASS = "class "
THIRTY, PART, BOTH = "30% random", "40% of class 3", "classes 3 and 8"
CONFUSED = (3, 5)
"""The two classes whose labels are swapped in the mislabelled case."""

MNIST_5K = DataSettings(source="mnist-5k")
CIFAR_2K = DataSettings(source="cifar100", limit=2000, mean=(0.507, 0.487, 0.441), std=(0.267, 0.256, 0.276))
"""20 samples a class: ResNet-18 in half an hour."""
MNIST_2K = DataSettings(source="mnist", limit=2000)
"""200 samples a class, the same for ResNet-18."""
SETTLED = CaptureSettings(methods=("settled",))


@dataclass(frozen=True)
class Config:
    """One training setting.

    cases:         what is forgotten, each from the same trained model (mislabelled ones from a run of their own)
    repaired:      cases with a further row after a quarter epoch of repair
    published:     also the 2024 paper's methods, as benchmarks/table1_experiment.py has them
    replayed:      also the 2024 paper's methods, summed while training once more (forgetting_replay.py), where their
                   rows would not fit on a disk
    epoch_seconds: a rough guess for one core; it decides only the order of the jobs
    """

    name: str
    data: DataSettings
    model: str
    training: TrainingSettings
    cases: tuple[str, ...]
    seeds: tuple[int, ...]
    capture: CaptureSettings = SETTLED
    repaired: tuple[str, ...] = ()
    published: bool = False
    replayed: bool = False
    epoch_seconds: float = 0.1

    @property
    def optimizer(self) -> str:
        """The name in the rows: sgd, momentum, adam or adamw."""
        own = self.training.optimizer
        return "momentum" if own.momentum else own.name

    def facts(self) -> dict[str, Any]:
        """What decides the result, as JSON."""
        settings = {name: getattr(self, name).model_dump(mode="json") for name in ("data", "training", "capture")}
        replayed = {"replayed": True} if self.replayed else {}
        return {"model": self.model, "repaired": self.repaired, "published": self.published, **settings, **replayed}


@dataclass(frozen=True)
class Job:
    """One training run and everything that is forgotten from it: the unit of work and of the cache."""

    config: Config
    seed: int
    cases: tuple[str, ...]
    data_root: Path | None = None

    @property
    def cost(self) -> float:
        """Seconds, roughly: capture and sealing take some four trainings, a forget set two retrainings."""
        sets = sum(case != BATCHES for case in self.cases)
        return self.config.training.epochs * self.config.epoch_seconds * (4 + 2 * sets)

    @property
    def key(self) -> str:
        """Name in the cache: another setting, seed or library version is another job."""
        facts = {**self.config.facts(), "seed": self.seed, "cases": self.cases, "versions": library_versions()}
        return f"{self.config.name}-seed{self.seed}-{hash_json(facts)[:12]}"

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.config.name}, seed {self.seed}: {', '.join(self.cases)}"


@dataclass(frozen=True)
class Profile:
    """Configs under a name, and what was left out and why."""

    name: str
    configs: tuple[Config, ...]
    left_out: tuple[str, ...] = ()


def _sgd(epochs: int, lr: float, momentum: float = 0.0) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, optimizer=OptimizerSettings(lr=lr, momentum=momentum))


_SMALL_STEPS = TrainingSettings(epochs=14, batch_size=16, optimizer=OptimizerSettings(lr=0.002, momentum=0.9))


def _adam(epochs: int) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, optimizer=OptimizerSettings(name="adam", lr=0.001))


def _quick() -> Iterator[Config]:
    mlp, cnn = (ONE, TEN, "class 3", BATCHES), (ONE, "class 3")
    yield Config("mlp-sgd", MNIST_5K, "mlp", _sgd(10, 0.5), mlp, (0, 1, 2))
    yield Config("mlp-momentum", MNIST_5K, "mlp", _sgd(12, 0.05, 0.9), (*mlp, MISLABELLED), (0, 1, 2))
    yield Config("mlp-adam", MNIST_5K, "mlp", _adam(10), mlp, (0, 1, 2), repaired=("class 3",))
    yield Config("cnn-sgd", MNIST_5K, "cnn", _sgd(9, 0.1), (ONE,), (0, 1), epoch_seconds=0.9)
    yield Config("cnn-momentum", MNIST_5K, "cnn", _sgd(9, 0.03, 0.9), cnn, (0, 1), epoch_seconds=0.9)


def _calibration() -> Iterator[Config]:
    """Forget sets of many sizes and kinds, for predicted against measured divergence (docs/methods.md); not the seeds
    that the prediction's constants were chosen on.
    """
    cases = (ONE, TEN, THIRTY, PART, "class 3", BOTH)
    yield Config("mlp-sgd", MNIST_5K, "mlp", _sgd(12, 0.5), cases, (3, 4))
    yield Config("mlp-momentum", MNIST_5K, "mlp", _sgd(15, 0.05, 0.9), cases, (3, 4))
    yield Config("mlp-adam", MNIST_5K, "mlp", _adam(10), cases, (3, 4))
    yield Config("cnn-sgd", MNIST_5K, "cnn", _sgd(8, 0.1), cases, (3,), epoch_seconds=0.9)
    yield Config("cnn-momentum", MNIST_5K, "cnn", _sgd(6, 0.03, 0.9), cases, (3,), epoch_seconds=0.9)
    yield Config("cnn-adam", MNIST_5K, "cnn", _adam(5), cases, (3,), epoch_seconds=0.9)


def _full() -> Iterator[Config]:
    """The CNN under SGD and Adam, then the paper's data and models. Those are captured at low rank: the exact
    spool of their convolutions would not fit on a disk.
    """
    every = (ONE, TEN, "class 3", BATCHES)
    yield Config("cnn-sgd", MNIST_5K, "cnn", _sgd(9, 0.1), every, (0, 1, 2), epoch_seconds=0.9)
    yield Config("cnn-adam", MNIST_5K, "cnn", _adam(5), every, (0, 1, 2), repaired=("class 3",), epoch_seconds=0.9)
    cnn = CaptureSettings(methods=("settled",), rank=4, dtype="float16")
    resnet = CaptureSettings(methods=("settled",), rank=1, dtype="float16")
    for data, label, training in ((MNIST_2K, 3, _adam(6)), (CIFAR_2K, 81, _SMALL_STEPS)):
        yield Config(
            f"{data.source}-resnet18-subset", data, "resnet18", training, cases := (ONE, f"{CLASS}{label}"), (0,),
            resnet, cases, replayed=True, epoch_seconds=20,
        )  # fmt: skip
    for source, label in (("mnist", 3), ("cifar100", 81)):
        data, cases = DataSettings(source=source), (ONE, f"{CLASS}{label}")
        yield Config(
            f"{source}-paper-cnn", data, "paper-cnn", _adam(4), cases, (0, 1, 2), cnn, cases, True, epoch_seconds=40
        )
        for model, seconds in (("resnet18", 300.0), ("resnet18-32", 3000.0)):
            yield Config(
                f"{source}-{model}", data, model, _sgd(4, 0.05, 0.9), cases, (0,), resnet, cases, epoch_seconds=seconds
            )


PROFILES = {
    "quick": Profile(
        "quick",
        tuple(_quick()),
        (
            "10% random and ten batches of 1% with the CNN (the first to go, for the five minutes)",
            "a class with the CNN and plain SGD, the CNN under Adam (both in full)",
            "mislabelled 2% for all but mlp-momentum",
        ),
    ),
    "calibration": Profile("calibration", tuple(_calibration())),
    "full": Profile(
        "full",
        tuple(_full()),
        (
            "Adam with the ResNets on whole data sets: its preconditioner of every step is 137 GB with 11 million "
            "parameters, so SGD with momentum",
            "the paper's methods with the ResNets on whole data sets: their rows would take 220 GB; on 2,000 samples "
            "what they add up to is summed by training once more",
            "the paper's code as published, which pairs samples with others' gradients (docs/table1.md)",
        ),
    ),
}


def choose(configs: Sequence[Config], only: Sequence[str], seeds: Sequence[int]) -> list[Config]:
    """The configs and cases named in `only`, with these seeds; everything where a list is empty.

    A word of `only` is a config ("mlp-sgd") or a case ("class 3"); of both kinds, what is in both is taken. Raises
    InputError for a word that is neither, and where nothing is left.
    """
    names, cases = {c.name for c in configs}, {case for c in configs for case in c.cases}
    if unknown := [word for word in only if word not in names | cases]:
        raise InputError(f"--only {unknown}: name configs {sorted(names)} or cases {sorted(cases)}")
    own_names, own_cases = (names & {*only} or names), (cases & {*only} or cases)
    chosen = [
        replace(c, cases=tuple(case for case in c.cases if case in own_cases), seeds=tuple(seeds) or c.seeds)
        for c in configs
        if c.name in own_names
    ]
    if not any(c.cases for c in chosen):
        raise InputError(f"--only {list(only)}: no config has such a case; leave one of the words out")
    return [c for c in chosen if c.cases]


def jobs_of(configs: Sequence[Config], data_root: Path | None) -> list[Job]:
    """A job for each config and seed, and one more where labels are swapped before training."""
    jobs = []
    for config in configs:
        plain = tuple(case for case in config.cases if case != MISLABELLED)
        for cases in (plain, (MISLABELLED,) if MISLABELLED in config.cases else ()):
            jobs += [Job(config, seed, cases, data_root) for seed in config.seeds if cases]
    return jobs


def draw(case: str, labels: Tensor, seed: int) -> list[int]:
    """The training samples to forget, positions; random ones in the order in which they were drawn.

    labels: true labels `[n]`. Raises InputError for an unknown case and where there is nothing to forget.
    """
    if case in (ONE, TEN, BATCHES, THIRTY):
        share, name = {ONE: (0.01, ONE), THIRTY: (0.3, THIRTY)}.get(case, (0.1, TEN))  # batches: parts of the 10 % set
        count = math.ceil(share * len(labels))
        return [int(i) for i in numpy_generator(seed, "forgetting", name).choice(len(labels), count, replace=False)]
    if case == MISLABELLED:
        return mislabelled_samples(labels, seed)
    if case == PART:
        own = torch.nonzero(labels == 3).flatten().numpy()
        count = math.ceil(0.4 * len(own))
        return [int(i) for i in numpy_generator(seed, "forgetting", PART).choice(own, count, replace=False)]
    if case == BOTH:
        return [int(i) for i in torch.nonzero((labels == 3) | (labels == 8)).flatten()]
    if case.startswith(CLASS) and (rows := torch.nonzero(labels == int(case.removeprefix(CLASS))).flatten()).numel():
        return [int(i) for i in rows]
    raise InputError(f"case {case!r} of the forgetting benchmark names no samples: see benchmarks/forgetting_cases.py")


def parts_of(forget: Sequence[int], count: int = 10) -> list[list[int]]:
    """Disjoint parts of (nearly) equal size, in the order drawn."""
    return [part.tolist() for part in np.array_split(np.asarray(forget, np.int64), count)]


def mislabelled_samples(labels: Tensor, seed: int) -> list[int]:
    """2 % of the samples: half of them of each of the two classes that are confused, ascending.

    Raises InputError where a class has too few samples.
    """
    count = max(1, round(0.02 * len(labels)) // 2)
    drawn: list[int] = []
    for label in CONFUSED:
        own = torch.nonzero(labels == label).flatten().numpy()
        if len(own) < count:
            raise InputError(
                f"{MISLABELLED!r} swaps the labels of {count} samples of class {label}, and there are {len(own)}: take "
                "more data"
            )
        drawn += numpy_generator(seed, "mislabelled", label).choice(own, count, replace=False).tolist()
    return sorted(drawn)


def mislabel(train: Split, forget: Sequence[int]) -> Split:
    """The training samples with the labels of `forget` swapped between the two classes (interclass confusion).

    Source: Goel et al., "Towards adversarial evaluations for inexact machine unlearning" (2022, arXiv 2201.06640).
    """
    labels = train.labels.clone()
    rows = torch.tensor(list(forget), dtype=torch.int64)
    labels[rows] = sum(CONFUSED) - labels[rows]
    return replace(train, labels=labels)
