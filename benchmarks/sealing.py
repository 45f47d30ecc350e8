"""What capture, curvature, pilot deletions and settling cost beside the training run that they belong to.

    amnesiac bench seal

Claim:     curvature takes about a quarter of plain training, for runs as small as these.
Procedure: plain training, training with capture, curvature, pilots, settling and writing, one after another, the whole
           round several times; CPU time of the process, medians, ratios to the median of plain training.
Runs:      MNIST-5k (4,000 training samples), mini-batches of 64, one thread: MLP (12 epochs) and CNN (9 epochs) under
           momentum, settings of the forgetting benchmark.
Rows:      what ("seal"), model, variant, ratio, seconds (median), low, high (of the repeats), bytes_per_sample
           (capture: spool; settling: both rows), peak_mb (largest resident memory while it ran; None where the system
           doesn't tell), n (repeats).
Hardware, versions: in the result's `environment`.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from amnesiac.capture.spool import read_spool
from amnesiac.curvature import Choice, RunCurvature
from amnesiac.ledger.settling import Settling
from amnesiac.progress import silent
from amnesiac.training import TrainingResult, record, retrain_without
from amnesiac.training.run import seal_run
from amnesiac.training.settling import curvature_of, pilot_of, probe_of
from benchmarks.forgetting import Options, environment
from benchmarks.forgetting_cases import PROFILES, Config, Job, choose
from benchmarks.forgetting_run import Row
from benchmarks.forgetting_start import Start, begin

CONFIGS = ("mlp-momentum", "cnn-momentum")
PLAIN, CAPTURE, CURVATURE, PILOTS, SETTLING = "plain training", "capture", "curvature", "pilots", "settling"


@dataclass
class Measured:
    """CPU seconds and peaks of memory of each variant, a number a repeat; bytes a sample where it writes."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, list[float | None]] = field(default_factory=dict)
    size: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, variant: str) -> Iterator[None]:
        """Measure the block."""
        _forget_peak()
        started = time.process_time()
        yield
        self.seconds.setdefault(variant, []).append(time.process_time() - started)
        self.peaks.setdefault(variant, []).append(_peak_mb())


def sealing_benchmark(options: Options, repeats: int, on_run: Callable[[str, int, int], None]) -> dict[str, Any]:
    """{"rows", "environment"}; raises InputError for a config that there isn't."""
    rows: list[Row] = []
    chosen = choose([c for c in PROFILES["quick"].configs if c.name in CONFIGS], options.only, options.seeds)
    for config in chosen:
        rows += _rows(config, measured(config, config.seeds[0], repeats, on_run))
    return {"rows": rows, "environment": environment(options)}


def measured(config: Config, seed: int, repeats: int, on_run: Callable[[str, int, int], None]) -> Measured:
    """Every variant of one config, `repeats` times in turn."""
    torch.set_num_threads(config.training.threads)
    found = Measured()
    with tempfile.TemporaryDirectory(prefix="sealing-") as folder:
        start = begin(Job(config, seed, config.cases), Path(folder))
        for turn in range(repeats):
            _one_round(start, found)
            on_run(config.name, turn + 1, repeats)
    return found


def _one_round(start: Start, found: Measured) -> None:
    plan, own = start.plan, (start.spec, start.factory, start.train)
    with found.of(PLAIN):
        retrain_without(*own, [])
    with found.of(CAPTURE):
        result = record(*own, plan)
    with found.of(CURVATURE):
        probe = probe_of(*own, plan)
        curvature = curvature_of(start.spec, plan, probe)
    with found.of(PILOTS), pilot_of(plan, probe, curvature, result.weights) as pilot:
        choices = pilot.few(None, silent), pilot.whole(None, silent)
    with found.of(SETTLING):
        manifest = seal_run(start.spec, start.train, plan, result, _settling(curvature, choices, result))
    n = len(start.train)
    with read_spool(plan.scratch / "spool") as spool:
        found.size[CAPTURE] = spool.visits.nbytes / n
    found.size[SETTLING] = sum(entry.rows * entry.row_bytes for entry in manifest.entries.values()) / n
    shutil.rmtree(plan.destination)


def _settling(curvature: RunCurvature, choices: tuple[Choice, Choice], result: TrainingResult) -> Settling:
    path = sum(float((result.weights[name] - start).square().sum()) for name, start in result.initial.items())
    return Settling(curvature, *choices, path**0.5)


def _rows(config: Config, found: Measured) -> list[Row]:
    plain = median(found.seconds[PLAIN])
    return [
        {
            "what": "seal",
            "model": config.model,
            "optimizer": config.optimizer,
            "variant": variant,
            "ratio": median(seconds) / plain,
            "seconds": median(seconds),
            "low": min(seconds),
            "high": max(seconds),
            "bytes_per_sample": found.size.get(variant, 0.0),
            "peak_mb": None if None in (peaks := found.peaks[variant]) else max(p for p in peaks if p is not None),
            "n": len(seconds),
        }
        for variant, seconds in found.seconds.items()
    ]


def _forget_peak() -> None:
    """Let the kernel count the peak of resident memory from now on, where it can."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def _peak_mb() -> float | None:
    """Largest resident memory since `_forget_peak`, MB."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
    return None if found is None else int(found) / 1024
