"""Whole runs: training with capture into a sealed ledger, retraining without the forget set, repair."""

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from amnesiac.curvature import FILE
from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.settling import Settling
from amnesiac.progress import Progress, silent
from amnesiac.seeding import derive_seed
from amnesiac.settings import RepairSettings, ScheduleSettings, TrainingSettings
from amnesiac.training.batches import augmentation, npy_bytes
from amnesiac.training.captured import captured_samples, sealed_samples
from amnesiac.training.capturing import built, capture_run, digest
from amnesiac.training.checkpoint import Checkpoint, load_checkpoint
from amnesiac.training.erased import refuse_erased
from amnesiac.training.group import ALONE, Group
from amnesiac.training.loop import Loop, TrainingData, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer, learning_rate
from amnesiac.training.processes import Samples, Work, device_of, group_of, together
from amnesiac.training.settling import settling_of
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
    captured_samples(plan.settings, data)  # refuses settings that leave nobody, before anything is removed
    group = group_of(spec.training)
    checkpoint = group.by_first(lambda: _begin(spec, plan, resume))
    result = _recorded(spec, factory, data, plan, checkpoint, progress)
    return result, group.by_first(lambda: _sealed(spec, factory, data, plan, result, progress))


def record(spec: RunSpec, factory: ModelFactory, data: TrainingData, plan: CapturePlan) -> TrainingResult:
    """Train and leave the spool in `plan.scratch`: the first part of `train_with_capture`, for measurements."""
    group_of(spec.training).by_first(lambda: _begin(spec, plan, False))
    return _recorded(spec, factory, data, plan, None, silent)


def seal_run(
    spec: RunSpec, data: TrainingData, plan: CapturePlan, result: TrainingResult, settling: Settling | None,
    progress: Progress = silent,
) -> Manifest:  # fmt: skip
    """Seal a recorded run: the last part of `train_with_capture`."""
    facts = spec.facts() | {"capture": plan.settings.model_dump(mode="json")}
    run = Run(
        spec.run_id(plan.settings), facts, plan.sample_ids, plan.subject_ids, result.initial, result.weights,
        spec.training.epochs, sealed_samples(plan.only, captured_samples(plan.settings, data), len(data.labels)),
        data.labels.numpy(), _attachments(spec, data, plan, settling), settling, plan.keys, plan.spread,
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
    work = partial(_retrain, spec, factory, Samples(data.inputs, data.labels), tuple(forget))
    return _together(spec, factory, work, progress)


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
    samples, start = Samples(data.inputs, data.labels), dict(weights)
    work = partial(_repair, spec, factory, start, samples, tuple(forget), settings)
    return _together(spec, factory, work, progress)


def _begin(spec: RunSpec, plan: CapturePlan, resume: bool) -> Checkpoint | None:
    """What to go on from; where there is nothing, an empty scratch folder."""
    checkpoint = load_checkpoint(plan.scratch, spec.run_id(plan.settings)) if resume else None
    if checkpoint is None:
        shutil.rmtree(plan.scratch, ignore_errors=True)
    return checkpoint


def _recorded(
    spec: RunSpec, factory: ModelFactory, data: TrainingData, plan: CapturePlan, checkpoint: Checkpoint | None,
    progress: Progress,
) -> TrainingResult:  # fmt: skip
    needed = dataclasses.replace(plan, sample_ids=(), subject_ids=(), keys=None, spread=None)  # no id, no key leaves
    work = partial(capture_run, spec, factory, Samples(data.inputs, data.labels), needed, checkpoint)
    return _together(spec, factory, work, progress)


def _sealed(
    spec: RunSpec, factory: ModelFactory, data: TrainingData, plan: CapturePlan, result: TrainingResult,
    progress: Progress,
) -> Manifest:  # fmt: skip
    settling = settling_of(spec, factory, data, plan, result, progress)
    return seal_run(spec, data, plan, result, settling, progress)


def _together(spec: RunSpec, factory: ModelFactory, work: Work, progress: Progress) -> TrainingResult:
    if spec.training.processes > 1:  # refused here, before processes are started
        built(spec, factory, ALONE)
    return together(spec.training, work, progress)


def _retrain(
    spec: RunSpec, factory: ModelFactory, data: TrainingData, forget: Sequence[int], group: Group, progress: Progress
) -> TrainingResult:
    """One process's part of `retrain_without`."""
    model, device = built(spec, factory, group), device_of(spec.training, group)
    initial = weights_of(model)
    loop = Loop(spec.training, spec.seed, data, _mask(data, forget), "retrain", progress, group=group, device=device)
    optimizer = build_optimizer(spec.training.optimizer, model.to(device).parameters())
    history: list[EpochRecord] = []
    run_epochs(loop, model, optimizer, range(spec.training.epochs), after_epoch=history.append)
    group.agree(model.state_dict(), digest, "at the end")
    return TrainingResult(weights_of(model), initial, tuple(history), sum(r.seconds for r in history))


def _repair(
    spec: RunSpec, factory: ModelFactory, weights: StateDict, data: TrainingData, forget: Sequence[int],
    settings: RepairSettings, group: Group, progress: Progress,
) -> TrainingResult:  # fmt: skip
    """One process's part of `repair`."""
    model, device = built(spec, factory, group), device_of(spec.training, group)
    model.load_state_dict(weights)
    training = _repair_training(spec, settings)
    loop = Loop(
        training, derive_seed(spec.seed, "repair"), data, _mask(data, forget), "repair", progress,
        group=group, device=device,
    )  # fmt: skip
    whole = int(settings.epochs)
    rest = round((settings.epochs - whole) * loop.steps_per_epoch)
    optimizer = build_optimizer(training.optimizer, model.to(device).parameters())
    history: list[EpochRecord] = []
    run_epochs(loop, model, optimizer, range(whole), after_epoch=history.append)
    if rest:
        last = dataclasses.replace(loop, max_steps=rest)
        run_epochs(last, model, optimizer, range(whole, whole + 1), after_epoch=history.append)
    group.agree(model.state_dict(), digest, "at the end")
    return TrainingResult(weights_of(model), weights, tuple(history), sum(r.seconds for r in history))


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
