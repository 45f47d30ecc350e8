"""What a deletion costs: open the ledger, read and check rows, decode, sum, add, write the model.

    amnesiac bench unlearn [--json]

Claim:     the cost of a deletion follows the number of samples deleted, hardly the number that there are; deleting 100
           of 60,000 samples takes less than a fiftieth of retraining the CNN for 10 epochs. Neither sealing nor
           deleting needs 500 MB more memory than plain training.
Runs:      MNIST (subsets and all 60,000 training samples), MLP with 101,770 parameters, one epoch under SGD, settled
           rows, encrypted with a key a sample. One epoch: a row has the same bytes however long the run was.
Variants:  warm       files as the last reading left them in memory
           cold       the ledger's and the keys' pages dropped from memory before each deletion (posix_fadvise)
           compute    of warm: reading, decrypting, decoding, summing and adding, with the ledger open already and the
                      model's file not written
           plain training, capture and seal   of the same run, an epoch: seconds, and the largest resident memory
Reference: retraining the CNN for 10 epochs on 60,000 samples: STEPS of its mini-batches are trained and timed in the
           same run, and scaled to all (plain training, one thread).
Rows:      what ("unlearn"), model, variant, samples (N), deleted (F), ratio (median seconds / the reference's), seconds
           (median), p99, bytes_per_sample, peak_mb, n (repeats).
Exponents: slopes of log seconds over log N at fixed F, and over log F at the largest N, by least squares.
Hardware, versions: in the result's `environment`, with the machine's load before the run.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from amnesiac.data import load_samples, open_dataset, prepare_dataset
from amnesiac.keys import LocalKeyStore
from amnesiac.ledger import open_ledger
from amnesiac.models import build_model
from amnesiac.models.files import save_weights
from amnesiac.settings import (
    CaptureSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
    UnlearningSettings,
)
from amnesiac.training import CapturePlan, RunSpec, retrain_without, train_with_capture
from amnesiac.training.loop import Loop, run_epochs
from amnesiac.training.optimizers import build_optimizer
from amnesiac.unlearning import ledgers_for, unlearn
from benchmarks.forgetting import Options, environment
from benchmarks.forgetting_run import Row
from benchmarks.memory import forget_peak, peak_mb

SIZES = (4_000, 15_000, 60_000)
DELETED = (1, 100, 1_000, 10_000)
STEPS = 150
EPOCHS = 10
SETTLED = UnlearningSettings(method="settled")
LIMITS = {"warm": 1 / 50, "compute": 1 / 500}
FLAT = 0.1
MORE_MB = 500
PLAIN, SEALED = "plain training", "capture and seal"
Weights = dict[str, torch.Tensor]
OnStep = Callable[[str, int, int], None]


def unlearn_benchmark(
    options: Options, sizes: Sequence[int], repeats: int, on_step: OnStep, source: str = "mnist"
) -> dict[str, Any]:
    """{"rows", "targets", "exponents", "environment"}; raises DataError where MNIST isn't there.

    sizes: numbers of samples to take for training (and testing, where the source has no split), a ledger each
    source: of 28x28 digits
    """
    torch.set_num_threads(1)
    facts = environment(options) | {"load": os.getloadavg()[0], "repeats": repeats}
    rows, reference = list[Row](), 0.0
    for k, size in enumerate(sorted(sizes)):
        with tempfile.TemporaryDirectory(prefix="unlearn-") as place:
            on_step(f"{size} samples: train and seal", k, len(sizes))
            weights, run_id, held, own = _sealed(
                Path(place), DataSettings(source=source, limit=size), options.data_root
            )
            reference = reference or _retraining(Path(place))
            rows += own
            rows += _measured(Path(place), weights, run_id, held, repeats)
    on_step("done", len(sizes), len(sizes))
    for row in rows:
        row["ratio"] = row["seconds"] / reference
    plain = _row("retraining the CNN, 10 epochs of 60,000", "plain", 60_000, 0, [reference], 0, None) | {"ratio": 1.0}
    found = exponents(rows)
    return {"rows": [plain, *rows], "targets": targets(rows, found), "exponents": found, "environment": facts}


def targets(rows: Sequence[Row], found: dict[str, float]) -> list[Row]:
    """What was asked for, and what it is."""
    largest = max(row["samples"] for row in rows)
    asked = [
        {"what": f"delete 100 of {largest:,} / retraining, {variant}", "measured": row["ratio"], "target": limit,
         "met": row["ratio"] <= limit}
        for variant, limit in LIMITS.items()
        for row in rows
        if (row["variant"], row["samples"], row["deleted"]) == (variant, largest, 100)
    ]  # fmt: skip
    asked += _memory_targets([row for row in rows if row["samples"] == largest])
    for name, value in found.items():
        if " over N" in name and math.isfinite(value):
            asked.append({"what": f"exponent, {name}", "measured": value, "target": FLAT, "met": value <= FLAT})
    return asked


def _memory_targets(rows: Sequence[Row]) -> list[Row]:
    """Peaks at the largest N, where the system tells them: what is more than plain training's."""
    peaks = {variant: [r["peak_mb"] for r in rows if r["variant"] == variant] for variant in (PLAIN, SEALED, "warm")}
    if not all(peaks.values()) or any(peak is None for own in peaks.values() for peak in own):
        return []
    more = {variant: max(own) - max(peaks[PLAIN]) for variant, own in peaks.items() if variant != PLAIN}
    return [
        {"what": f"peak memory, {'deleting' if variant == 'warm' else variant}, MB above plain training",
         "measured": value, "target": MORE_MB, "met": value <= MORE_MB}
        for variant, value in more.items()
    ]  # fmt: skip


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """Slopes of log seconds, by what is held fixed; only where there are three points or more."""
    largest, found = max(row["samples"] for row in rows), {}
    for deleted in DELETED:
        own = [row for row in rows if row["variant"] == "warm" and row["deleted"] == deleted]
        if len(own) > 2:
            found[f"F = {deleted:,} over N"] = _slope([(row["samples"], row["seconds"]) for row in own])
    own = [row for row in rows if row["variant"] == "warm" and row["samples"] == largest]
    if len(own) > 2:
        found[f"N = {largest:,} over F"] = _slope([(row["deleted"], row["seconds"]) for row in own])
    return found


def _slope(points: Sequence[tuple[float, float]]) -> float:
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def _sealed(place: Path, data: DataSettings, data_root: Path | None) -> tuple[Weights, str, int, list[Row]]:
    """A sealed, encrypted ledger in `place`; the trained weights, the run's id, the number of training samples, and
    what plain training and sealing took.
    """
    keys = LocalKeyStore(place / "keys", create=True)
    prepare_dataset(load_samples(data, data_root, 0), data, 0, place / "data", keys)
    dataset = open_dataset(place / "data", keys)
    train = dataset.split("train")
    training = TrainingSettings(epochs=1, optimizer=OptimizerSettings(lr=0.1), threads=1)
    spec = RunSpec(0, ModelSettings(factory="mlp"), training, dataset.content_hash)
    factory = partial(build_model, spec.model, dataset.image_shape, len(dataset.class_names), 0)
    capture = CaptureSettings(methods=("settled",))
    plan = CapturePlan(
        capture, ledgers_for(capture), train.sample_ids, train.subject_ids, place / "ledger", place / "scratch", keys
    )
    forget_peak()
    started = time.perf_counter()
    retrain_without(spec, factory, train, ())
    rows = [_row("mlp", PLAIN, len(train), 0, [time.perf_counter() - started], 0, peak_mb())]
    forget_peak()
    started = time.perf_counter()
    result, manifest = train_with_capture(spec, factory, train, plan)
    kept = sum(entry.row_bytes for entry in manifest.entries.values())
    rows.append(_row("mlp", SEALED, len(train), 0, [time.perf_counter() - started], kept, peak_mb()))
    return result.weights, manifest.run_id, len(train), rows


def _retraining(place: Path) -> float:
    """Seconds of plain training of the CNN for EPOCHS epochs of 60,000 samples, from STEPS mini-batches."""
    keys = LocalKeyStore(place / "keys")
    train = open_dataset(place / "data", keys).split("train")
    training = TrainingSettings(epochs=1, optimizer=OptimizerSettings(lr=0.03, momentum=0.9), threads=1)
    model = build_model(ModelSettings(factory="cnn"), (1, 28, 28), 10, 0)
    optimizer = build_optimizer(training.optimizer, model.parameters())
    steps = max(1, min(STEPS, len(train) // training.batch_size))
    loop = Loop(training, 0, train, np.zeros(len(train), bool), max_steps=steps)
    started = time.perf_counter()
    run_epochs(loop, model, optimizer, range(1))
    return (time.perf_counter() - started) / steps * EPOCHS * -(-60_000 // training.batch_size)


def _measured(place: Path, weights: Weights, run_id: str, size: int, repeats: int) -> Iterator[Row]:
    for deleted in (count for count in DELETED if count < size):
        for variant in ("warm", "cold", "compute"):
            seconds, size_of_row = [], 0
            forget_peak()
            for turn in range(repeats + 1):
                forget = np.random.default_rng(turn).choice(size, deleted, replace=False).tolist()
                if variant == "cold":
                    _drop(place / "ledger")
                    _drop(place / "keys")
                taken, size_of_row = _delete(place, weights, run_id, forget)
                seconds.append(taken[variant == "compute"])
            yield _row("mlp", variant, size, deleted, seconds[1:], size_of_row, peak_mb())  # the first warms up


def _delete(place: Path, weights: Weights, run_id: str, forget: Sequence[int]) -> tuple[tuple[float, float], int]:
    """Seconds of a whole deletion, and of its part between opening and writing; bytes of a row."""
    started = time.perf_counter()
    ledger = open_ledger(place / "ledger", run_id=run_id, keys=LocalKeyStore(place / "keys"))
    done = unlearn(SETTLED, ledger, weights, forget)
    save_weights(place / "unlearned.safetensors", done.weights)
    whole = time.perf_counter() - started
    return (whole, done.seconds), done.row_bytes


def _drop(folder: Path) -> None:
    """Ask the kernel to forget a folder's files; it may decline."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _row(
    model: str, variant: str, size: int, deleted: int, seconds: Sequence[float], row_bytes: int, peak: float | None
) -> Row:
    return {
        "what": "unlearn", "model": model, "variant": variant, "samples": size, "deleted": deleted, "ratio": 0.0,
        "seconds": median(seconds), "p99": float(np.quantile(seconds, 0.99)), "bytes_per_sample": row_bytes,
        "peak_mb": peak, "n": len(seconds),
    }  # fmt: skip
