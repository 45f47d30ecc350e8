"""What capture costs: a whole training run with its contributions written, against what a user would pick instead.

    amnesiac bench capture [--json]

Claim:     capture and store cost at most a quarter of plain training's wall time for the MLP and a fifth for the CNN,
           where a second core is free; vmap takes at least twice as long as that, Opacus five times.
Variants:  plain     the training loop of this project, nothing recorded
           capture   the same with every sample's contribution in the spool: hooks, a writing thread, a durable
                     checkpoint an epoch, the file closed at the end (exact rows, float32)
           updates   the original amnesiac (Graves et al. 2021): every mini-batch's update of the weights to a file
           vmap      per-sample gradients by torch.func, summed for the step and thrown away
           opacus    the same by Opacus' GradSampleModule; left out where Opacus isn't installed
                     (`pip install amnesiac[bench]`)
Order:     every round takes the variants in turn, beginning with another one. Ratios are medians over rounds of the
           variant's seconds over plain's in the same round.
Runs:      MNIST-5k (4,000 training samples), mini-batches of 64, momentum .9, one thread: MLP (101,770 parameters,
           5 epochs) and CNN (106,122 parameters, 2 epochs).
Rows:      what ("capture"), model, variant, ratio, low, high (smallest and largest of the rounds), seconds (wall,
           median), cpu_ratio, cpu_seconds (all threads), bytes_per_sample (written), peak_mb (largest resident memory
           while it ran, the process's own included), n (rounds).
Hardware, versions: in the result's `environment`, with the machine's load before the run: a busy second core shows in
`ratio`, not in `cpu_ratio`.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from amnesiac.capture.spool import Spool
from amnesiac.training import record, retrain_without
from amnesiac.training.batches import epoch_batches
from amnesiac.training.optimizers import build_optimizer
from benchmarks.forgetting import Options, environment
from benchmarks.forgetting_cases import PROFILES, Config, Job, choose
from benchmarks.forgetting_run import Row
from benchmarks.forgetting_start import Start, begin
from benchmarks.memory import forget_peak, peak_mb

EPOCHS = {"mlp-momentum": 5, "cnn-momentum": 2}
PLAIN = "plain"
LIMITS = {"mlp": 1.25, "cnn": 1.20}
SLOWER = {"vmap": 2.0, "opacus": 5.0}
"""How many times capture's seconds the others take at least."""
Step = Callable[[nn.Module, Tensor, Tensor, int], None]


@dataclass(frozen=True)
class Timing:
    """One run: seconds of wall clock and CPU, largest resident memory in MB, bytes a sample that it wrote."""

    wall: float
    cpu: float
    peak: float | None
    written: float


def capture_benchmark(options: Options, rounds: int, on_round: Callable[[str, int, int], None]) -> dict[str, Any]:
    """{"rows", "targets", "environment"}; raises InputError for a config that there isn't."""
    configs = choose([c for c in PROFILES["quick"].configs if c.name in EPOCHS], options.only, options.seeds)
    facts = environment(replace(options, workers=1)) | {"load": os.getloadavg()[0], "rounds": rounds}
    rows = [row for config in configs for row in _rows(config, _timings(config, rounds, on_round))]
    return {"rows": rows, "targets": targets(rows), "environment": facts}


def targets(rows: Sequence[Row]) -> list[Row]:
    """What was asked for, and what it is."""
    wall = {(row["model"], row["variant"]): row["ratio"] for row in rows}
    found = [("training with capture / plain", m, wall[m, "capture"], LIMITS[m]) for m in LIMITS if (m, PLAIN) in wall]
    asked = [{"what": w, "model": m, "measured": r, "target": t, "met": r <= t} for w, m, r, t in found]
    for (model, variant), ratio in wall.items():
        if variant in SLOWER:
            times, least = ratio / wall[model, "capture"], SLOWER[variant]
            name = f"{variant} / training with capture"
            asked.append({"what": name, "model": model, "measured": times, "target": least, "met": times >= least})
    return asked


def _timings(config: Config, rounds: int, on_round: Callable[[str, int, int], None]) -> dict[str, list[Timing]]:
    torch.set_num_threads(config.training.threads)
    training = config.training.model_copy(update={"epochs": EPOCHS[config.name]})
    variants = [name for name in VARIANTS if name != "opacus" or find_spec("opacus")]
    found = {name: list[Timing]() for name in variants}
    with tempfile.TemporaryDirectory(prefix="capture-") as folder:
        start = begin(Job(replace(config, training=training), config.seeds[0], config.cases), Path(folder))
        for name in variants:  # once to warm up
            VARIANTS[name](start)
        for turn in range(rounds):
            for k in range(len(variants)):
                name = variants[(k + turn) % len(variants)]
                found[name].append(_timed(partial(VARIANTS[name], start)))
            on_round(config.name, turn + 1, rounds)
    return found


def _timed(run: Callable[[], float]) -> Timing:
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    written = run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, peak_mb(), written)


def _plain(start: Start) -> float:
    retrain_without(start.spec, start.factory, start.train, [])
    return 0


def _capture(start: Start) -> float:
    record(start.spec, start.factory, start.train, start.plan)
    written = sum((start.plan.scratch / "spool" / name).stat().st_size for name in Spool.FILES)
    return written / len(start.train)


def _updates(start: Start) -> float:
    """The weights' change in every step, as float32."""
    path = start.plan.scratch.parent / "updates.bin"
    with path.open("wb") as file:

        def step(model: nn.Module, inputs: Tensor, labels: Tensor, scheduled: int) -> None:
            (F.cross_entropy(model(inputs), labels, reduction="sum") / scheduled).backward()  # type: ignore[no-untyped-call]

        def changed(before: Tensor, after: Tensor) -> None:
            file.write((after - before).numpy().data)

        _train(start, step, changed)
    return path.stat().st_size / len(start.train)


def _vmap(start: Start) -> int:
    def step(model: nn.Module, inputs: Tensor, labels: Tensor, scheduled: int) -> None:
        parameters = {name: value.detach() for name, value in model.named_parameters()}

        def loss(own: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(model, dict(own), (x[None],)), y[None]) / scheduled

        shares = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
        for name, value in model.named_parameters():
            value.grad = shares[name].sum(0)

    return _train(start, step)


def _opacus(start: Start) -> int:
    from opacus.grad_sample import GradSampleModule

    def step(model: nn.Module, inputs: Tensor, labels: Tensor, scheduled: int) -> None:
        (F.cross_entropy(model(inputs), labels, reduction="sum") / scheduled).backward()  # type: ignore[no-untyped-call]
        value: Any  # Opacus adds an attribute to each parameter
        for value in model.parameters():
            value.grad, value.grad_sample = value.grad_sample.sum(0), None

    return _train(start, step, wrapped=lambda model: GradSampleModule(model, loss_reduction="sum"))


def _train(
    start: Start,
    step: Step,
    changed: Callable[[Tensor, Tensor], None] | None = None,
    wrapped: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> int:
    """The same mini-batches, loss and optimiser as the project's loop, with gradients by `step`."""
    training, data = start.spec.training, start.train
    model = wrapped(start.factory())
    optimizer, nobody = build_optimizer(training.optimizer, model.parameters()), np.zeros(len(data), bool)
    for epoch in range(training.epochs):
        for batch in epoch_batches(len(data), training.batch_size, start.spec.seed, epoch, nobody):
            rows = torch.from_numpy(batch.rows)
            before = _flat(model) if changed else None
            optimizer.zero_grad()
            step(model, data.inputs[rows], data.labels[rows], batch.scheduled)
            optimizer.step()
            if changed and before is not None:
                changed(before, _flat(model))
    return 0


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


VARIANTS: Mapping[str, Callable[[Start], float]] = {
    PLAIN: _plain, "capture": _capture, "updates": _updates, "vmap": _vmap, "opacus": _opacus,
}  # fmt: skip


def _rows(config: Config, found: Mapping[str, Sequence[Timing]]) -> list[Row]:
    return [
        {
            "what": "capture",
            "model": config.model,
            "optimizer": config.optimizer,
            "variant": name,
            **_ratios(own, found[PLAIN]),
            "bytes_per_sample": own[-1].written,
            "peak_mb": None if None in (peaks := [t.peak for t in own]) else max(p for p in peaks if p is not None),
            "n": len(own),
        }
        for name, own in found.items()
    ]


def _ratios(own: Sequence[Timing], plain: Sequence[Timing]) -> dict[str, float]:
    walls = [a.wall / b.wall for a, b in zip(own, plain, strict=True)]
    cpus = [a.cpu / b.cpu for a, b in zip(own, plain, strict=True)]
    seconds, cpu_seconds = median(t.wall for t in own), median(t.cpu for t in own)
    return {"ratio": median(walls), "low": min(walls), "high": max(walls), "seconds": seconds,
            "cpu_ratio": median(cpus), "cpu_seconds": cpu_seconds}  # fmt: skip
