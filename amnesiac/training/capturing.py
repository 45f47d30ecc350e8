"""One process's part of a run with capture: the recorder attached, a checkpoint after every epoch."""

import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from amnesiac.capture.joined import process_folder
from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool
from amnesiac.hashing import hash_tensors
from amnesiac.ledger.base import to_grid
from amnesiac.progress import Progress
from amnesiac.training.captured import captured_samples
from amnesiac.training.checkpoint import Checkpoint, restore, save_checkpoint, state_of
from amnesiac.training.group import Group, refuse_mixing
from amnesiac.training.loop import Loop, TrainingData, run_epochs, weights_of
from amnesiac.training.optimizers import build_optimizer
from amnesiac.training.processes import device_of
from amnesiac.training.settling import keep_snapshot, settles
from amnesiac.training.spec import CapturePlan, EpochRecord, ModelFactory, RunSpec, TrainingResult


def capture_run(
    spec: RunSpec,
    factory: ModelFactory,
    data: TrainingData,
    plan: CapturePlan,
    checkpoint: Checkpoint | None,
    group: Group,
    progress: Progress,
) -> TrainingResult:
    """Train from the start or the checkpoint, this process's samples going to a spool of its own."""
    started, device = time.perf_counter(), device_of(spec.training, group)
    model = built(spec, factory, group)
    initial = weights_of(model)
    optimizer = build_optimizer(spec.training.optimizer, model.to(device).parameters())
    if checkpoint is not None:
        restore(plan.scratch, model, optimizer)
    recorder = _recorder(spec, model, optimizer, data, plan, checkpoint, group)
    history = list(checkpoint.history) if checkpoint else []
    earlier = sum(record.seconds for record in history)

    def after_epoch(record: EpochRecord) -> None:
        history.append(record)
        _keep(spec, plan, recorder, tuple(history), state_of(model, optimizer), group)

    at_midpoint = partial(keep_snapshot, spec, plan, model) if group.leads else lambda epoch: None
    nobody = np.zeros(len(data.labels), bool)
    loop = Loop(spec.training, spec.seed, data, nobody, "train", progress, group=group, device=device)
    remaining = range(len(history), spec.training.epochs)
    try:
        run_epochs(loop, model, optimizer, remaining, recorder, after_epoch, at_midpoint)
    finally:
        recorder.close()
    weights = to_grid(weights_of(model)) if settles(plan) else weights_of(model)
    return TrainingResult(weights, initial, tuple(history), earlier + time.perf_counter() - started)


def built(spec: RunSpec, factory: ModelFactory, group: Group) -> nn.Module:
    """The model, the same in every process; raises UnsupportedModel where it can't be trained as the settings say."""
    model = factory()
    refuse_mixing(model, spec.training.micro_batch, spec.training.processes)
    group.agree(model.state_dict(), digest, "before the first step")
    return model


def _recorder(
    spec: RunSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    plan: CapturePlan,
    checkpoint: Checkpoint | None,
    group: Group,
) -> Recorder:
    folder = process_folder(plan.scratch / "spool", group.rank, group.count)
    sizes = _own(checkpoint.spool, group) if checkpoint and checkpoint.spool is not None else None
    return Recorder(
        model, optimizer, Spool(folder, sizes), captured=captured_samples(plan.settings, data), rank=plan.settings.rank,
        dtype=plan.settings.dtype, updates={s.name: s.fraction for s in plan.ledgers if s.per == "step"},
        clipping=spec.training.clip_norm is not None, steps=group.leads, layers=plan.settings.layers,
    )  # fmt: skip


def _keep(
    spec: RunSpec,
    plan: CapturePlan,
    recorder: Recorder,
    done: tuple[EpochRecord, ...],
    state: Mapping[str, Tensor],
    group: Group,
) -> None:
    """A checkpoint: on one process once its spool is written, which training needn't wait for; on several, once all
    spools are.
    """

    def keep(sizes: dict[str, int]) -> None:
        save_checkpoint(plan.scratch, Checkpoint(spec.run_id(plan.settings), len(done), done, sizes), state)

    if group.count == 1:
        recorder.when_written(keep)
        return
    group.agree(state, digest, f"after epoch {len(done)}")
    sizes = group.gathered({_prefix(group) + name: size for name, size in recorder.sync().items()})
    if group.leads:
        keep({name: size for own in sizes for name, size in own.items()})


def _own(sizes: Mapping[str, int], group: Group) -> dict[str, int]:
    prefix = _prefix(group)
    return {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}


def _prefix(group: Group) -> str:
    return "" if group.count == 1 else f"process-{group.rank}/"


def digest(value: Tensor) -> str:
    """What two processes compare instead of a tensor."""
    return hash_tensors({"": value})
