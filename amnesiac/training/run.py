"""Whole runs: training with capture into a sealed ledger, retraining without the forget set, repair."""

import dataclasses
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool
from amnesiac.curvature import FILE
from amnesiac.ledger.base import to_grid
from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.settling import Settling
from amnesiac.progress import Progress, silent
from amnesiac.seeding import derive_seed
from amnesiac.settings import RepairSettings, ScheduleSettings, TrainingSettings
from amnesiac.training.batches import augmentation, npy_bytes
from amnesiac.training.captured import captured_samples, sealed_samples
from amnesiac.training.checkpoint import Checkpoint, load_checkpoint, restore, save_checkpoint, state_of
from amnesiac.training.erased import refuse_erased
from amnesiac.training.loop import Loop, TrainingData, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer, learning_rate
from amnesiac.training.settling import keep_snapshot, settles, settling_of
from amnesiac.training.spec import CapturePlan, EpochRecord, ModelFactory, RunSpec, StateDict, TrainingResult

AUGMENTATION = "augmentation.npy"


def train_with_capture(
    spec: RunSpec,
    factory: ModelFactory,
    data: TrainingData,
    plan: CapturePlan,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> tuple[TrainingResult, Manifest]:
    """Train and seal the ledger.

    With `resume`, goes on from the last completed segment in `plan.scratch` and ends bit-identical to an
    uninterrupted run. Raises SettingsError, UnsupportedModel, UnsupportedOptimizer or (erased samples) KeyDestroyed.
    """
    refuse_erased(data)
    run_id, captured = spec.run_id(plan.settings), captured_samples(plan.settings, data)
    checkpoint = load_checkpoint(plan.scratch, run_id) if resume else None
    if checkpoint is None:
        shutil.rmtree(plan.scratch, ignore_errors=True)
    model = factory()
    initial = weights_of(model)
    result = _record(spec, model, initial, data, plan, captured, checkpoint, progress)
    settling = settling_of(spec, factory, data, plan, result, progress)
    return result, seal_run(spec, data, plan, result, settling, progress)


def record(spec: RunSpec, factory: ModelFactory, data: TrainingData, plan: CapturePlan) -> TrainingResult:
    """Train and leave the spool in `plan.scratch`: the first part of `train_with_capture`, for measurements."""
    shutil.rmtree(plan.scratch, ignore_errors=True)
    model = factory()
    return _record(spec, model, weights_of(model), data, plan, captured_samples(plan.settings, data), None, silent)


def seal_run(
    spec: RunSpec, data: TrainingData, plan: CapturePlan, result: TrainingResult, settling: Settling | None,
    progress: Progress = silent,
) -> Manifest:  # fmt: skip
    """Seal a recorded run: the last part of `train_with_capture`."""
    facts = spec.facts() | {"capture": plan.settings.model_dump(mode="json")}
    run = Run(
        spec.run_id(plan.settings), facts, plan.sample_ids, plan.subject_ids, result.initial, result.weights,
        spec.training.epochs, sealed_samples(plan.only, captured_samples(plan.settings, data), len(data.labels)),
        data.labels.numpy(), _attachments(spec, data, plan, settling), settling, plan.keys,
    )  # fmt: skip
    return seal(plan.scratch / "spool", plan.destination, run, plan.ledgers, progress)


def discard_scratch(scratch: Path) -> None:
    """Remove spool and checkpoint, once model and ledger are safely written."""
    shutil.rmtree(scratch, ignore_errors=True)


def retrain_without(
    spec: RunSpec,
    factory: ModelFactory,
    data: TrainingData,
    forget: Sequence[int],
    *,
    progress: Progress = silent,
) -> TrainingResult:
    """The reference: same start, schedule, mini-batches and draws, without `forget`, which holds all erased samples."""
    refuse_erased(data, forget)
    model = factory()
    initial = weights_of(model)
    loop = Loop(spec.training, spec.seed, data, _mask(data, forget), "retrain", progress)
    optimizer = build_optimizer(spec.training.optimizer, model.to(spec.training.device).parameters())
    history: list[EpochRecord] = []
    run_epochs(loop, model, optimizer, range(spec.training.epochs), after_epoch=history.append)
    return TrainingResult(weights_of(model), initial, tuple(history), sum(r.seconds for r in history))


def repair(
    spec: RunSpec,
    factory: ModelFactory,
    weights: Mapping[str, torch.Tensor],
    data: TrainingData,
    forget: Sequence[int],
    settings: RepairSettings,
    *,
    progress: Progress = silent,
) -> TrainingResult:
    """Fine-tune `weights` on the retained samples for `settings.epochs` (a fraction is a part of an epoch); raises
    KeyDestroyed unless every erased sample of `data` is in `forget`.
    """
    refuse_erased(data, forget)
    model = factory()
    model.load_state_dict(dict(weights))
    training = _repair_training(spec, settings)
    loop = Loop(training, derive_seed(spec.seed, "repair"), data, _mask(data, forget), "repair", progress)
    whole = int(settings.epochs)
    rest = round((settings.epochs - whole) * loop.steps_per_epoch)
    optimizer = build_optimizer(training.optimizer, model.to(training.device).parameters())
    history: list[EpochRecord] = []
    run_epochs(loop, model, optimizer, range(whole), after_epoch=history.append)
    if rest:
        last = dataclasses.replace(loop, max_steps=rest)
        run_epochs(last, model, optimizer, range(whole, whole + 1), after_epoch=history.append)
    return TrainingResult(weights_of(model), dict(weights), tuple(history), sum(r.seconds for r in history))


def _record(
    spec: RunSpec,
    model: nn.Module,
    initial: StateDict,
    data: TrainingData,
    plan: CapturePlan,
    captured: npt.NDArray[np.bool_] | None,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> TrainingResult:
    """Train from the start or the checkpoint, the recorder attached and a checkpoint after every segment."""
    started = time.perf_counter()
    model.to(spec.training.device)
    optimizer = build_optimizer(spec.training.optimizer, model.parameters())
    if checkpoint is not None:
        restore(plan.scratch, model, optimizer)
    spool = Spool(plan.scratch / "spool", checkpoint.spool if checkpoint else None)
    recorder = Recorder(
        model, optimizer, spool, captured=captured, rank=plan.settings.rank,
        dtype=plan.settings.dtype, updates={s.name: s.fraction for s in plan.ledgers if s.per == "step"},
        clipping=spec.training.clip_norm is not None, layers=plan.settings.layers,
    )  # fmt: skip
    history = list(checkpoint.history) if checkpoint else []
    earlier = sum(record.seconds for record in history)

    def after_epoch(record: EpochRecord) -> None:
        history.append(record)
        state, done = state_of(model, optimizer), tuple(history)
        recorder.when_written(
            lambda sizes: save_checkpoint(
                plan.scratch, Checkpoint(spec.run_id(plan.settings), len(done), done, sizes), state
            )
        )

    loop = Loop(spec.training, spec.seed, data, np.zeros(len(data.labels), bool), "train", progress)
    remaining = range(len(history), spec.training.epochs)
    try:
        run_epochs(loop, model, optimizer, remaining, recorder, after_epoch, partial(keep_snapshot, spec, plan, model))
    finally:
        recorder.close()
    weights = to_grid(weights_of(model)) if settles(plan) else weights_of(model)
    return TrainingResult(weights, initial, tuple(history), earlier + time.perf_counter() - started)


def _attachments(spec: RunSpec, data: TrainingData, plan: CapturePlan, settling: Settling | None) -> dict[str, bytes]:
    """What was drawn for augmentation, if there is any, and the run's curvature, where rows are settled at deletion."""
    augment, n = spec.training.augment, len(data.labels)
    kept: dict[str, bytes] = {}
    if augment.shift or augment.flip:
        draws = [augmentation(augment, n, spec.seed, epoch) for epoch in range(spec.training.epochs)]
        kept[AUGMENTATION] = npy_bytes(np.stack(draws).astype(np.int16))
    if settling is not None and any(ledger.per == "segment" for ledger in plan.ledgers):
        kept[FILE] = settling.curvature.to_bytes()
    return kept


def _repair_training(spec: RunSpec, settings: RepairSettings) -> TrainingSettings:
    """The training settings with a constant rate: `settings.lr`, else the rate at which training's last epoch began."""
    last = learning_rate(
        spec.training.optimizer.lr, spec.training.schedule, spec.training.epochs - 1, spec.training.epochs
    )
    optimizer = spec.training.optimizer.model_copy(update={"lr": settings.lr or last})
    update = {"optimizer": optimizer, "schedule": ScheduleSettings(), "epochs": max(1, math.ceil(settings.epochs))}
    return spec.training.model_copy(update=update)


def _mask(data: TrainingData, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(data.labels), bool)
    mask[list(rows)] = True
    return mask
