"""Whole runs: training with capture into a sealed ledger, retraining without the forget set, repair."""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amnesiac.capture.attribution import rate_weights
from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool, read_spool
from amnesiac.curvature import FILE, Choice, Pilot, Probe, RunCurvature, measure
from amnesiac.errors import StoreError
from amnesiac.keys import KeyStore
from amnesiac.ledger.base import to_grid
from amnesiac.ledger.manifest import Manifest
from amnesiac.ledger.seal import Run, seal
from amnesiac.ledger.settling import Settling
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.ledger.visits import StepWeights, segment_sums, visit_table
from amnesiac.models.files import load_weights, save_weights
from amnesiac.progress import Progress, silent
from amnesiac.seeding import derive_seed
from amnesiac.settings import CaptureSettings, RepairSettings, ScheduleSettings, TrainingSettings
from amnesiac.training.batches import augmentation, batches_per_epoch, npy_bytes
from amnesiac.training.captured import captured_samples, sealed_samples
from amnesiac.training.checkpoint import Checkpoint, load_checkpoint, restore, save_checkpoint
from amnesiac.training.erased import refuse_erased
from amnesiac.training.loop import Loop, TrainingData, run_epochs, threads, weights_of
from amnesiac.training.optimizers import build_optimizer, learning_rate
from amnesiac.training.spec import EpochRecord, RunSpec, StateDict, TrainingResult

AUGMENTATION = "augmentation.npy"
ModelFactory = Callable[[], nn.Module]


@dataclass(frozen=True)
class CapturePlan:
    """What to capture and where it goes.

    ledgers:      rows to seal (amnesiac.unlearning says which a method needs)
    destination:  folder of the sealed ledger
    scratch:      folder of spool and checkpoint, outside `destination`; removed by `discard_scratch`
    keys:         encrypts the ledger; None: it lies in clear
    only:         positions of the samples whose rows are sealed, None for all; all are captured, so that curvature and
                  kappa are those of the whole run (an audit forgets few samples of a run that nobody keeps)
    """

    settings: CaptureSettings
    ledgers: tuple[LedgerSpec, ...]
    sample_ids: Sequence[str]
    subject_ids: Sequence[str]
    destination: Path
    scratch: Path
    keys: KeyStore | None = None
    only: Sequence[int] | None = None


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
    facts = spec.facts() | {"capture": plan.settings.model_dump(mode="json")}
    settling = _settling(spec, factory, data, plan, result, progress)
    run = Run(
        run_id, facts, plan.sample_ids, plan.subject_ids, initial, result.weights, spec.training.epochs,
        sealed_samples(plan.only, captured, len(data.labels)),
        data.labels.numpy(), _attachments(spec, data, plan, settling), settling, plan.keys,
    )  # fmt: skip
    manifest = seal(plan.scratch / "spool", plan.destination, run, plan.ledgers, progress)
    return result, manifest


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
    )  # fmt: skip
    history = list(checkpoint.history) if checkpoint else []
    earlier = sum(record.seconds for record in history)

    def after_epoch(record: EpochRecord) -> None:
        history.append(record)
        state = Checkpoint(spec.run_id(plan.settings), len(history), tuple(history), spool.sync())
        save_checkpoint(plan.scratch, state, model, optimizer)

    loop = Loop(spec.training, spec.seed, data, np.zeros(len(data.labels), bool), "train", progress)
    remaining = range(len(history), spec.training.epochs)
    try:
        run_epochs(loop, model, optimizer, remaining, recorder, after_epoch, partial(_keep_snapshot, spec, plan, model))
    finally:
        recorder.close()
    weights = to_grid(weights_of(model)) if _settles(plan) else weights_of(model)
    return TrainingResult(weights, initial, tuple(history), earlier + time.perf_counter() - started)


def _keep_snapshot(spec: RunSpec, plan: CapturePlan, model: nn.Module, epoch: int) -> None:
    """The weights in the middle of a segment, where its curvature will be measured."""
    if _settles(plan) and epoch in _middles(spec, plan):
        save_weights(_snapshot(plan, epoch), weights_of(model))


def _segments(spec: RunSpec, plan: CapturePlan) -> list[int]:
    """First epoch of each segment, and the number of epochs: as few whole epochs a segment as the settings allow."""
    epochs = spec.training.epochs
    unsettled = plan.settings.settled.rows == "unsettled"  # a row keeps a part for every epoch
    length = 1 if unsettled else -(-epochs // plan.settings.curvature.segments)
    return [*range(0, epochs, length), epochs]


def _middles(spec: RunSpec, plan: CapturePlan) -> list[int]:
    """The epoch in the middle of each segment."""
    bounds = _segments(spec, plan)
    return [(a + b - 1) // 2 for a, b in pairwise(bounds)]


def _snapshot(plan: CapturePlan, epoch: int) -> Path:
    return plan.scratch / "snapshots" / f"epoch-{epoch}.safetensors"


def _settles(plan: CapturePlan) -> bool:
    return any(spec.per == "segment" or spec.per.startswith("settled") for spec in plan.ledgers)


def _settling(
    spec: RunSpec,
    factory: ModelFactory,
    data: TrainingData,
    plan: CapturePlan,
    result: TrainingResult,
    progress: Progress,
) -> Settling | None:
    """The run's curvature and the kappas that pilot deletions choose, where a ledger needs them."""
    if not _settles(plan):
        return None
    if not all(bool(value.isfinite().all()) for value in result.weights.values() if value.is_floating_point()):
        raise StoreError("the run has diverged: its weights are not finite; lower the learning rate and train again")
    settings, n = plan.settings.curvature, len(data.labels)
    snapshots = [load_weights(_snapshot(plan, epoch)) for epoch in _middles(spec, plan)]
    samples = min(max(settings.smallest_sample, round(settings.fraction * n)), settings.largest_sample)
    classes, steps = int(data.labels.max()) + 1, batches_per_epoch(n, spec.training.batch_size)
    probe = Probe(
        factory, snapshots, data.inputs, data.labels, classes, samples, settings.largest_factor, spec.seed
    )  # fmt: skip
    bounds, decay = [steps * epoch for epoch in _segments(spec, plan)], spec.training.optimizer.weight_decay
    with threads(spec.training.threads):
        curvature = measure(plan.scratch / "spool", probe, bounds, settings.clip_quantile, decay, progress)
        choices = _choices(plan, probe, curvature, result.weights, progress)
        return Settling(curvature, *choices, _path(result, curvature))


def _path(result: TrainingResult, curvature: RunCurvature) -> float:
    names = [name for block in curvature.blocks for name in block.parameters]
    return math.hypot(*(float((result.weights[name] - result.initial[name]).norm()) for name in names))


def _choices(
    plan: CapturePlan, probe: Probe, curvature: RunCurvature, final: StateDict, progress: Progress
) -> tuple[Choice, Choice]:
    """For a few samples and for whole classes."""
    given = plan.settings.settled.kappa
    with read_spool(plan.scratch / "spool") as spool:
        table = visit_table(spool.index)
        weights = StepWeights(rate_weights(spool.layout.rule, spool.steps))

        def sums(samples: npt.NDArray[np.int64]) -> list[torch.Tensor]:
            chosen = np.flatnonzero(np.isin(table.samples, samples))
            return segment_sums(spool, table, weights, chosen, curvature.bounds)

        pilot = Pilot(probe, curvature, final, sums, table.samples)
        return pilot.few(given, progress), pilot.whole(given, progress)


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
