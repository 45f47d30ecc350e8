"""How near forgetting lands to retraining, against doing nothing, plain subtraction and raw gradients x learning rate.

    amnesiac bench forgetting          or        make bench

Claim:     settled deltas of 1 % of the samples (random, or mislabelled) land where retraining lands, within what
           another seed changes; 10 % nearly; a class is forgotten and the rest kept, without repair; ten batches are
           one.
Profiles:  quick  MNIST-5k (4,000 training and 1,000 test samples), MLP over 3 seeds and CNN over 2; SGD, momentum, Adam
           full   MNIST and CIFAR-100, the 2024 paper's CNN over 3 seeds, ResNet-18 (7x7 stem and 3x3) over 1, also on
                  subsets of 2,000 samples
           What each leaves out, and why, is in `forgetting_cases.PROFILES`.
Training:  mini-batches of 64, one thread a process, two processes. The seed draws initialisation, order and forget set.
Rows:      one a case, config, seed and method: original, retrained, retrained_other_seed, plain, raw_lr, settled (for
           Adam's class also after repair). KL is KL(retrained || model) in nats, margins are mean |difference| from the
           retrained model's; seconds of training for (re)trained models, else of the deletion.
           Extra fields: confusion (mislabelled: share of test samples of the two classes that are taken for each other,
           plus that share of the forget set, true labels), bit_identical and drift (ten batches),
           amnesiac_bytes_per_sample (settled: what whole-batch updates would take), test_class_accuracy and
           test_others_accuracy (a class: on its test samples, as the 2024 paper has it), replay_apart (methods summed
           by training once more, forgetting_replay.py: how far that ended from the run; `seconds` are that training's).
Targets:   issue 3's table, with the spread between two retrainings beside each figure.
Hardware, versions, n: in the result's `environment`, measured where it ran; what the run itself cost in `cost`.
"""

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from amnesiac.errors import AmnesiacError, DamagedStore
from amnesiac.ledger.manifest import library_versions
from benchmarks.forgetting_calibration import agreement
from benchmarks.forgetting_cases import PROFILES, Config, Job, Profile, choose, jobs_of
from benchmarks.forgetting_run import Row, run_job
from benchmarks.forgetting_targets import evaluate

__all__ = ["PROFILES", "Config", "Job", "Options", "Profile", "benchmark", "run"]

Work = Callable[[Job], list[Row]]
OnJob = Callable[[str, int, int], None]
"""Called with a finished job, how many are finished and how many there are."""


@dataclass(frozen=True)
class Options:
    """only, seeds:  see `choose`; empty for all
    data_root:  of published data sets (full profile)
    cache:      folder in which each job's rows are kept, so that a killed campaign goes on; None: nothing is kept
    workers:    processes, each with one thread
    """

    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    data_root: Path | None = None
    cache: Path | None = None
    workers: int = 2


def benchmark(profile: Profile, options: Options, on_job: OnJob) -> dict[str, Any]:
    """Run a profile; {"rows", "targets", "profile", "environment", "cost"} as JSON can hold it.

    Raises InputError for a word of `only` that names nothing, and whatever a run raises.
    """
    configs = choose(profile.configs, options.only, options.seeds)
    jobs, spent = jobs_of(configs, options.data_root), Meter()
    known = sum(cached(options.cache, job) is not None for job in jobs)
    rows = run(jobs, options, on_job)
    facts, cost = {"name": profile.name, "left_out": list(profile.left_out)}, spent.facts(len(jobs) - known, known)
    found = {"rows": rows, "targets": evaluate(rows), "profile": facts, "environment": environment(options)}
    return found | {"cost": cost} | ({"calibration": agreement(rows)} if profile.name == "calibration" else {})


def run(jobs: Sequence[Job], options: Options, on_job: OnJob, work: Work = run_job, prefix: str = "") -> list[Row]:
    """The rows of all jobs in their order; those that the cache has are not run again, the longest start first.

    work: what a job does (a function that a module has);  prefix: of its files in the cache
    """
    found = {job.key: rows for job in jobs if (rows := cached(options.cache, job, prefix)) is not None}
    waiting = sorted((job for job in jobs if job.key not in found), key=lambda job: -job.cost)
    for k, job in enumerate(job for job in jobs if job.key in found):
        on_job(job.label, k + 1, len(jobs))
    try:
        for job, rows in _run_in_pool(waiting, options.workers, work):
            found[job.key] = rows
            keep(options.cache, job, rows, prefix)
            on_job(job.label, len(found), len(jobs))
    except BrokenProcessPool as error:
        raise AmnesiacError(
            f"a process of the benchmark was killed ({error}), most likely for want of memory: run it with "
            "--workers 1, and with --cache FOLDER, so that finished runs are kept"
        ) from error
    return [row for job in jobs for row in found[job.key]]


def _run_in_pool(jobs: Sequence[Job], workers: int, work: Work) -> Iterator[tuple[Job, list[Row]]]:
    """Jobs and their rows as they finish."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(work, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error too: nothing that waits is begun


class Meter:
    """What a benchmark costs from now on: wall time, and the processor's time in all its processes.

    On a machine that is shared wall time says little; CPU seconds over the number of workers is about what it takes on
    free cores (somewhat more than that: who shares a core also shares its caches).
    """

    def __init__(self) -> None:
        """Start now."""
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def facts(self, runs: int, cached_runs: int) -> dict[str, Any]:
        """As JSON: `runs` were carried out, `cached_runs` were read and cost nothing this time."""
        wall, cpu = time.perf_counter() - self._wall, _cpu_seconds() - self._cpu
        facts = {"wall_seconds": wall, "cpu_seconds": cpu, "seconds_on_two_free_cores": cpu / 2}
        return facts | {"cores": os.cpu_count(), "runs": runs, "cached_runs": cached_runs}


def _cpu_seconds() -> float:
    """User and system time of this process and of all that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def cached(folder: Path | None, job: Job, prefix: str = "") -> list[Row] | None:
    """A job's rows from the cache, None where it has none; raises DamagedStore for a file that can't be read.

    The key knows settings and library versions, not this project's code: after a change there take another folder.
    """
    path = folder / f"{prefix}{job.key}.json" if folder else None
    if path is None or not path.exists():
        return None
    try:
        rows: list[Row] = json.loads(path.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read ({error!r}): remove it, and the run is done again") from error
    return rows


def keep(folder: Path | None, job: Job, rows: list[Row], prefix: str = "") -> None:
    """Write a job's rows into the cache, whole or not at all."""
    if folder:
        write_json(folder / f"{prefix}{job.key}.json", {"job": job.label, "settings": job.config.facts(), "rows": rows})


def environment(options: Options) -> dict[str, Any]:
    """Hardware and versions."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    facts = {"cpu": cpu, "cores": os.cpu_count(), "workers": options.workers, "platform": platform.platform()}
    return {**facts, "versions": library_versions()}
