"""How far drift is off once the trained weights are withdrawn: `python -m benchmarks.drift` (8 s of CPU time).

Claim:     batches added up as orthogonal changes miss the true drift by a tenth where samples are drawn at random, and
           by a third where one class goes in parts; the sum of their norms never falls below it.
Measured:  chains of deletion batches, each gone on from the one before; after each the estimate over the exact distance
           to the trained weights, and the upper bound over it. 800 samples of MNIST-5k, MLP 784-32-10, 5 epochs of SGD
           .05 with momentum .9, settled deltas, seed 0.
Rows:      one a chain: samples deleted at its end, exact drift, estimate / exact, bound / exact.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from amnesiac.data import Split, load_samples, open_dataset, prepare_dataset
from amnesiac.ledger import SealedLedger, open_ledger
from amnesiac.models import build_model
from amnesiac.settings import (
    CaptureSettings,
    ConfidenceSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
    UnlearningSettings,
)
from amnesiac.training import CapturePlan, RunSpec, train_with_capture
from amnesiac.unlearning import confidence, ledgers_for, unlearn

DATA, MODEL = DataSettings(limit=1000), ModelSettings(options={"hidden": [32]})
CAPTURE = CaptureSettings(methods=("settled",))
TRAINING = TrainingSettings(epochs=5, optimizer=OptimizerSettings(lr=0.05, momentum=0.9))
SETTLED, LIMITS = UnlearningSettings(method="settled"), ConfidenceSettings()
Weights = Mapping[str, torch.Tensor]


def benchmark() -> list[dict[str, Any]]:
    """A row a chain of batches."""
    with TemporaryDirectory() as name:
        train = _prepared(Path(name))
        ledger, weights = _trained(Path(name), train)
        found = {chain: list(_chain(ledger, weights, parts))[-1] for chain, parts in _chains(train.labels.numpy())}
    return [{"chain": chain} | row for chain, row in found.items()]


def _prepared(folder: Path) -> Split:
    prepare_dataset(load_samples(DATA, None, 0), DATA, 0, folder / "prepared")
    return open_dataset(folder / "prepared").split("train")


def _trained(folder: Path, train: Split) -> tuple[SealedLedger, Weights]:
    shape, ids = tuple(train.inputs.shape[1:]), list(train.sample_ids)
    plan = CapturePlan(CAPTURE, ledgers_for(CAPTURE), ids, ids, folder / "ledger", folder / "scratch")
    spec = RunSpec(0, MODEL, TRAINING, "data")
    result, _ = train_with_capture(spec, lambda: build_model(MODEL, shape, 10, 0), train, plan)
    return open_ledger(folder / "ledger"), result.weights


def _chains(labels: np.ndarray) -> Iterator[tuple[str, Sequence[Sequence[int]]]]:
    order = np.random.default_rng(1).permutation(len(labels))
    three, five = (np.flatnonzero(labels == label) for label in (3, 5))
    for count, size in ((20, 1), (20, 5), (10, 20)):
        yield f"{count} batches of {size} at random", order[: count * size].reshape(count, size).tolist()
    yield "class 3 in 10 parts", [part.tolist() for part in np.array_split(three, 10)]
    yield "class 3, then class 5", [three.tolist(), five.tolist()]


def _chain(ledger: SealedLedger, weights: Weights, parts: Sequence[Sequence[int]]) -> Iterator[dict[str, float]]:
    before: tuple[int, ...] = ()
    last, estimate, most = weights, 0.0, 0.0
    for part in parts:
        done = unlearn(SETTLED, ledger, weights, tuple(sorted(part)), before=before, master=last if before else None)
        before = tuple(sorted({*before, *part}))
        known = confidence(ledger, last, done.master, before, LIMITS, estimate, most)
        exact = confidence(ledger, weights, done.master, before, LIMITS)
        assert known is not None and exact is not None
        last, estimate, most = done.master, known.drift, known.drift_at_most
        yield {"samples": len(before), "drift": exact.drift, "estimate": estimate / exact.drift,
               "bound": most / exact.drift}  # fmt: skip


def main() -> None:
    """Print the rows as JSON."""
    rows = benchmark()
    assert all(math.isfinite(row["estimate"]) for row in rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
