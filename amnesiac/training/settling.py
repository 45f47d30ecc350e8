"""What the rows of a recorded run are settled with: its curvature, and the kappas that pilot deletions choose."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amnesiac.capture.attribution import rate_weights
from amnesiac.capture.spool import read_spool
from amnesiac.curvature import Choice, Pilot, Probe, RunCurvature, measure
from amnesiac.errors import StoreError
from amnesiac.ledger.settling import Settling
from amnesiac.ledger.visits import StepWeights, segment_sums, visit_table
from amnesiac.models.files import load_weights, save_weights
from amnesiac.progress import Progress, silent
from amnesiac.training.batches import batches_per_epoch
from amnesiac.training.loop import TrainingData, threads, weights_of
from amnesiac.training.spec import CapturePlan, ModelFactory, RunSpec, StateDict, TrainingResult


def keep_snapshot(spec: RunSpec, plan: CapturePlan, model: nn.Module, epoch: int) -> None:
    """The weights in the middle of a segment, where its curvature will be measured."""
    if settles(plan) and epoch in _middles(spec, plan):
        save_weights(_snapshot(plan, epoch), weights_of(model))


def _segments(spec: RunSpec, plan: CapturePlan) -> list[int]:
    """First epoch of each segment, and the number of epochs: whole epochs, as evenly spread as they can be."""
    epochs = spec.training.epochs
    unsettled = plan.settings.settled.rows == "unsettled"  # a row keeps a part for every epoch
    count = epochs if unsettled else min(epochs, plan.settings.curvature.segments)
    return [round(k * epochs / count) for k in range(count + 1)]


def _middles(spec: RunSpec, plan: CapturePlan) -> list[int]:
    """The epoch in the middle of each segment."""
    bounds = _segments(spec, plan)
    return [(a + b - 1) // 2 for a, b in pairwise(bounds)]


def _snapshot(plan: CapturePlan, epoch: int) -> Path:
    return plan.scratch / "snapshots" / f"epoch-{epoch}.safetensors"


def settles(plan: CapturePlan) -> bool:
    """Whether a ledger of the plan needs curvature."""
    return any(spec.per == "segment" or spec.per.startswith("settled") for spec in plan.ledgers)


def settling_of(
    spec: RunSpec,
    factory: ModelFactory,
    data: TrainingData,
    plan: CapturePlan,
    result: TrainingResult,
    progress: Progress = silent,
) -> Settling | None:
    """The run's curvature and the kappas that pilot deletions choose, where a ledger needs them."""
    if not settles(plan):
        return None
    if not all(bool(value.isfinite().all()) for value in result.weights.values() if value.is_floating_point()):
        raise StoreError("the run has diverged: its weights are not finite; lower the learning rate and train again")
    probe = probe_of(spec, factory, data, plan)
    with threads(spec.training.threads):
        curvature = curvature_of(spec, plan, probe, progress)
        return Settling(
            curvature, *_choices(plan, probe, curvature, result.weights, progress), _path(result, curvature)
        )


def probe_of(spec: RunSpec, factory: ModelFactory, data: TrainingData, plan: CapturePlan) -> Probe:
    """What the curvature of a recorded run is measured on: the snapshots that it left in `plan.scratch`, the data."""
    settings, n = plan.settings.curvature, len(data.labels)
    snapshots = [load_weights(_snapshot(plan, epoch)) for epoch in _middles(spec, plan)]
    samples = min(max(settings.smallest_sample, round(settings.fraction * n)), settings.largest_sample)
    classes = int(data.labels.max()) + 1
    return Probe(
        factory,
        snapshots,
        data.inputs,
        data.labels,
        classes,
        samples,
        settings.largest_factor,
        spec.seed,
        plan.settings.layers,
    )


def curvature_of(spec: RunSpec, plan: CapturePlan, probe: Probe, progress: Progress = silent) -> RunCurvature:
    """The curvature of a recorded run, segment by segment."""
    steps = batches_per_epoch(len(probe.labels), spec.training.batch_size)
    bounds, decay = [steps * epoch for epoch in _segments(spec, plan)], spec.training.optimizer.weight_decay
    quantile = plan.settings.curvature.clip_quantile
    return measure(plan.scratch / "spool", probe, bounds, quantile, decay, progress)


def _path(result: TrainingResult, curvature: RunCurvature) -> float:
    names = [name for block in curvature.blocks for name in block.parameters]
    return math.hypot(*(float((result.weights[name] - result.initial[name]).norm()) for name in names))


def _choices(
    plan: CapturePlan, probe: Probe, curvature: RunCurvature, final: StateDict, progress: Progress
) -> tuple[Choice, Choice]:
    """For a few samples and for whole classes."""
    given = plan.settings.settled.kappa
    with pilot_of(plan, probe, curvature, final) as pilot:
        return pilot.few(given, progress), pilot.whole(given, progress)


@contextmanager
def pilot_of(plan: CapturePlan, probe: Probe, curvature: RunCurvature, final: StateDict) -> Iterator[Pilot]:
    """What tries deletions on a recorded run, from its spool."""
    with read_spool(plan.scratch / "spool") as spool:
        table = visit_table(spool.index)
        weights = StepWeights(rate_weights(spool.layout.rule, spool.steps))

        def sums(samples: npt.NDArray[np.int64]) -> list[torch.Tensor]:
            chosen = np.flatnonzero(np.isin(table.samples, samples))
            return segment_sums(spool, table, weights, chosen, curvature.bounds)

        yield Pilot(probe, curvature, final, sums, table.samples)
