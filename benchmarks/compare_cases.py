"""What `amnesiac bench compare` runs: settings, forget sets by memorisation, and the pilots on which strengths are
chosen.

The forget sets are the same for every method and every member of an ensemble:

    1% random             that of `bench forgetting`, seed 0
    most memorised 1%     the samples whose own label training teaches most: largest p(label | trained with the sample)
                          - p(label | trained without), after Feldman and Zhang (arXiv 2008.03703), from models that
                          are trained on three quarters of the samples
    mislabelled 2%        that of `bench forgetting`, seed 0, in a run of its own: labels of two classes swapped

A pilot is another set of the same kind, disjoint from what is reported, forgotten from training runs with seeds that no
figure is reported of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.data import Split, load_samples, open_dataset, prepare_dataset
from amnesiac.hashing import hash_json
from amnesiac.ledger.manifest import library_versions
from amnesiac.seeding import numpy_generator
from amnesiac.settings import CaptureSettings, DataSettings, OptimizerSettings, SettledSettings, TrainingSettings
from benchmarks.forgetting_cases import MISLABELLED, MNIST_5K, ONE, Config, draw, mislabel, mislabelled_samples

MEMORISED = "most memorised 1%"
CASES = (ONE, MEMORISED, MISLABELLED)
PILOT_SEEDS = (900, 901)
FOLDS, ROUNDS, SHADOW_SEED = 4, 5, 5000
CAPTURE = CaptureSettings(methods=("settled",), settled=SettledSettings(class_rows=False))
"""No row for a whole class: none is forgotten here."""


@dataclass(frozen=True)
class Profile:
    """configs: settings;  members: models of each kind in an ensemble, seeds 0, 1, ...;  reported: seeds with rows of
    their own;  rounds: of the memorisation estimate;  pilots: seeds on which strengths are chosen
    """

    name: str
    configs: tuple[Config, ...]
    members: int = 32
    reported: tuple[int, ...] = (0, 1, 2)
    rounds: int = ROUNDS
    pilots: tuple[int, ...] = PILOT_SEEDS
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sets:
    """Positions in the training split, ascending, by case; scores: memorisation of each training sample `[n]`."""

    reported: dict[str, list[int]]
    pilots: dict[str, list[int]]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Data:
    """train: with the labels that are trained on;  truth: the true ones `[n]`;  content: the prepared data's hash."""

    train: Split
    test: Split
    truth: Tensor
    classes: int
    content: str


def _config(name: str, model: str, optimizer: OptimizerSettings, epochs: int, seconds: float) -> Config:
    training = TrainingSettings(epochs=epochs, optimizer=optimizer)
    return Config(name, MNIST_5K, model, training, CASES, (), CAPTURE, epoch_seconds=seconds)


MLP = _config("mlp-momentum", "mlp", OptimizerSettings(lr=0.05, momentum=0.9), 12, 0.1)
PROFILES = {
    "quick": Profile(
        "quick",
        (MLP,),
        left_out=(
            "the MLP under SGD without momentum and under Adam, and the CNN (all in full)",
            "the least memorised samples: forgetting them changes nothing, which every method achieves",
        ),
    ),
    "full": Profile(
        "full",
        (
            MLP,
            _config("mlp-sgd", "mlp", OptimizerSettings(lr=0.5), 10, 0.1),
            _config("mlp-adam", "mlp", OptimizerSettings(name="adam", lr=0.001), 10, 0.15),
            _config("cnn-momentum", "cnn", OptimizerSettings(lr=0.03, momentum=0.9), 9, 0.9),
        ),
    ),
}


def key_of(stage: str, config: Config, **facts: Any) -> str:
    """Name in the cache: another setting or library version is another entry."""
    everything = {**config.facts(), **facts, "versions": library_versions()}
    return f"compare-{stage}-{config.name}-{hash_json(everything)[:12]}"


def data_of(config: Config, data_root: Path | None, swapped: Sequence[int] = ()) -> Data:
    """The data, split in the same way for every run; labels of the samples `swapped` exchanged."""
    true, test, classes, content = _prepared(config.data, data_root)
    train = mislabel(true, swapped) if swapped else true
    return Data(train, test, true.labels, classes, f"{content}-{hash_json(list(swapped))[:8]}" if swapped else content)


@lru_cache(maxsize=1)
def _prepared(data: DataSettings, data_root: Path | None) -> tuple[Split, Split, int, str]:
    with TemporaryDirectory(prefix="compare-") as folder:
        prepare_dataset(load_samples(data, data_root, 0), data, 0, Path(folder) / "data")
        dataset = open_dataset(Path(folder) / "data")
        return dataset.split("train"), dataset.split("test"), len(dataset.class_names), dataset.content_hash


def folds_of(n: int, round_: int) -> list[npt.NDArray[np.int64]]:
    """The samples `[n]` in four disjoint parts, each left out by one model of a round of the memorisation estimate."""
    return np.array_split(numpy_generator(SHADOW_SEED, "folds", round_).permutation(n), FOLDS)


def memorisation(probabilities: npt.NDArray[np.float64], left_out: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """p(label) where a sample was trained on less where it was left out, means over models: `[n]` from `[models, n]`.

    Every sample must have been left out by a model and trained on by another.
    """
    inside = np.where(left_out, 0.0, probabilities).sum(0) / (~left_out).sum(0)
    outside = np.where(left_out, probabilities, 0.0).sum(0) / left_out.sum(0)
    scores: npt.NDArray[np.float64] = inside - outside
    return scores


def sets_by_memorisation(labels: Tensor, scores: npt.NDArray[np.float64]) -> Sets:
    """The reported and the pilot forget sets of every case, from true labels and scores `[n]`."""
    ranked, random, swapped = np.argsort(-scores, kind="stable"), draw(ONE, labels, 0), mislabelled_samples(labels, 0)
    size = len(random)
    rest = np.setdiff1d(np.arange(len(labels)), random)
    others = numpy_generator(PILOT_SEEDS[0], "compare pilot").choice(rest, size, replace=False)
    free = labels.clone()
    free[torch.tensor(swapped)] = -1
    reported = {ONE: random, MEMORISED: ranked[:size].tolist(), MISLABELLED: swapped}
    pilots = {
        ONE: others.tolist(),
        MEMORISED: ranked[size : 2 * size].tolist(),
        MISLABELLED: mislabelled_samples(free, PILOT_SEEDS[0]),
    }
    ordered = [{case: sorted(rows) for case, rows in own.items()} for own in (reported, pilots)]
    return Sets(ordered[0], ordered[1], tuple(scores.tolist()))
