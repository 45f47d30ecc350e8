"""Train the original model while its ledger is captured, and the reference that never saw the forget set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import nn

from amnesiac.data import PreparedDataset
from amnesiac.durable import whole_folder, write_json
from amnesiac.hashing import hash_json, hash_tensors
from amnesiac.ledger import Manifest
from amnesiac.models import build_model, count_parameters, save_weights
from amnesiac.seeding import derive_seed
from amnesiac.training import (
    CapturePlan,
    RunSpec,
    TrainingResult,
    discard_scratch,
    retrain_without,
    train_with_capture,
)
from amnesiac.unlearning import ledgers_for
from tasks.catalog import catalog
from tasks.opaque import opaque
from tasks.parallel import shared_files, spread
from tasks.progress import shown_progress
from tasks.settling import spread_settling
from tasks.storing import LEDGER, move_out
from tasks.timings import keep_seconds

MODEL = "model.safetensors"


@task(name="train and capture", cache_policy=NO_CACHE, persist_result=False)
@opaque
def train_original(resume: bool) -> dict[str, Any]:
    """Train with capture, seal the ledger, write the model; a summary as JSON."""
    at, params = catalog(), catalog().params()
    dataset = at.dataset()
    train = dataset.split("train")
    plan = CapturePlan(
        params.capture, ledgers_for(params.capture), train.sample_ids, train.subject_ids, at.ledger, at.scratch,
        at.key_store(), spread=spread_settling(),
    )  # fmt: skip
    started = time.perf_counter()
    with shown_progress("train-and-capture", f"training {params.model.factory}") as progress:
        factory = model_factory(dataset)
        result, manifest = train_with_capture(at.run_spec(), factory, train, plan, resume=resume, progress=progress)
    move_out(LEDGER)
    summary = _summary(result, manifest, factory())
    _write_model(at.model, result, summary)
    keep_seconds("train", result.seconds)
    if not resume:  # a resumed run's seconds are those of several processes
        keep_seconds("seal", max(0.0, time.perf_counter() - started - result.seconds))
    discard_scratch(at.scratch)
    return summary


@task(name="retrain without the forget set", cache_policy=NO_CACHE, persist_result=False)
@opaque
def retrain_reference(forget: Sequence[int]) -> Path:
    """The model that never saw the training samples at these positions; trained once for each run and forget set, then
    found by its content key.
    """
    return _reference(forget, catalog().run_spec(), "retrain", "retraining without the forget set")


@task(name="retrain with another seed", cache_policy=NO_CACHE, persist_result=False)
@opaque
def retrain_with_other_seed(forget: Sequence[int], number: int) -> Path:
    """One of `evaluation.other_seeds` more references (`number` from 1), initialised and ordered by a seed of its own:
    what they differ by from the first is the seed-to-seed band. Trained once for each run and forget set, like it.
    """
    runs = other_runs()
    description = f"retraining with another seed ({number} of {len(runs)})"
    return _reference(forget, runs[number - 1], "retrain-with-other-seeds", description)


def retrained_references(forget: Sequence[int]) -> tuple[Path, ...]:
    """All references, the one of the run's own seed first: one after the other, or at once on Dask."""
    others = [(retrain_with_other_seed, (forget, k)) for k in range(1, len(other_runs()) + 1)]
    spread([(retrain_reference, (forget,)), *others])
    return shared_files(reference_paths(forget))


def reference_path(forget: Sequence[int], run: RunSpec | None = None) -> Path:
    """Where the reference without these training positions lies: by run and positions, so erasure doesn't hide it."""
    at = catalog()
    return at.retrained / f"{hash_json([(run or at.run_spec()).facts(), sorted(forget)])[:24]}.safetensors"


def reference_paths(forget: Sequence[int]) -> tuple[Path, ...]:
    """The same of all references without these positions: the first, then those of other seeds."""
    return tuple(reference_path(forget, run) for run in (catalog().run_spec(), *other_runs()))


def model_factory(dataset: PreparedDataset, seed: int | None = None) -> Callable[[], nn.Module]:
    """The settings' model, freshly initialised at each call, by the settings' seed if no other is given."""
    params = catalog().params()
    seed = params.seed if seed is None else seed
    return partial(build_model, params.model, dataset.image_shape, len(dataset.class_names), seed)


def other_runs() -> tuple[RunSpec, ...]:
    """The run with `evaluation.other_seeds` further seeds."""
    params, run = catalog().params(), catalog().run_spec()
    seeds = [derive_seed(params.seed, "other seed", k) for k in range(params.evaluation.other_seeds)]
    return tuple(replace(run, seed=seed) for seed in seeds)


def _reference(forget: Sequence[int], run: RunSpec, key: str, description: str) -> Path:
    dataset, path = catalog().dataset(), reference_path(forget, run)
    if not path.exists():
        factory, train = model_factory(dataset, run.seed), dataset.split("train")
        with shown_progress(key, description) as progress:
            result = retrain_without(run, factory, train, forget, progress=progress)
        save_weights(path, result.weights)
        keep_seconds(f"retrain-{path.stem}", result.seconds)
    return path


def _summary(result: TrainingResult, manifest: Manifest, model: nn.Module) -> dict[str, Any]:
    """Nothing that differs from run to run: it lies in a DVC output."""
    last = result.history[-1]
    return {
        "run_id": manifest.run_id,
        "weights_sha256": hash_tensors(result.weights),
        "parameters": count_parameters(model),
        "epochs": last.epoch,
        "train_loss": last.loss,
        "train_accuracy": last.accuracy,
        "residual": manifest.residual,
        "bytes_per_row": {name: entry.row_bytes for name, entry in manifest.entries.items()},
    }


def _write_model(folder: Path, result: TrainingResult, summary: dict[str, Any]) -> None:
    history = pd.DataFrame([(r.epoch, r.loss, r.accuracy, r.learning_rate) for r in result.history])
    history.columns = pd.Index(["epoch", "loss", "accuracy", "learning_rate"])
    with whole_folder(folder) as aside:
        save_weights(aside / MODEL, result.weights, {"run_id": str(summary["run_id"])})
        history.to_csv(aside / "history.csv", index=False)
        write_json(aside / "training.json", summary)
