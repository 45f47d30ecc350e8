"""What the formats of settled rows cost and keep: bytes, fidelity, time to seal, time to delete.

    amnesiac bench rows

Claim:     eight bits and two outer products a layer lose nothing against dense float32 rows (MLP: 1/257).
Procedure: train with capture once, settle once; seal the same spool in each format; delete 1 %, 10 % and class 3 from
           each and compare with retraining. Settings of the forgetting benchmark: MLP and CNN under momentum.
Formats:   `FORMATS`; without `--only` all but the dense one, which takes 3 GB of disk and minutes.
Rows:      bytes_per_sample (both rows of a sample), kl and accuracies (forget, retain, test) by forget set,
           seal_seconds (CPU), delete_ms (wall, of the 10 % set; median of three). One row a model and format.
Hardware, versions, n (one seed): in the result's `environment`.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import accuracy, kl, predict
from amnesiac.ledger import SealedLedger, open_ledger
from amnesiac.settings import SettledSettings
from amnesiac.training import TrainingResult, record, retrain_without
from amnesiac.training.run import seal_run
from amnesiac.training.settling import settling_of
from amnesiac.unlearning import ledgers_for, unlearn
from benchmarks.forgetting import Meter, OnJob, Options, environment, run
from benchmarks.forgetting_baselines import bytes_per_sample
from benchmarks.forgetting_cases import ONE, PROFILES, TEN, Config, choose, draw, jobs_of
from benchmarks.forgetting_run import SETTLED, Row, Weights
from benchmarks.forgetting_start import Start, begin

FORMATS = {
    "low-rank 2 and 1, 8 bits": SettledSettings(),
    "low-rank 2 and 2, 8 bits": SettledSettings(class_rank=2),
    "low-rank 2 and 2, 16 bits": SettledSettings(class_rank=2, bits=16),
    "low-rank 1 and 1, 8 bits": SettledSettings(rank=1),
    "masked 10 %, 8 bits": SettledSettings(rows="masked"),
    "dense, 32 bits": SettledSettings(rows="dense", bits=32),
}
LARGE = "dense, 32 bits"
CASES = (ONE, TEN, "class 3")
CONFIGS = ("mlp-momentum", "cnn-momentum")
REPEATS = 3


def rows_benchmark(options: Options, on_job: OnJob) -> dict[str, Any]:
    """{"rows", "environment", "cost"}. Words of `only` are configs or formats; raises InputError for any other."""
    formats = tuple(word for word in options.only if word in FORMATS) or tuple(f for f in FORMATS if f != LARGE)
    names = tuple(word for word in options.only if word not in FORMATS) or CONFIGS
    if unknown := [word for word in names if word not in CONFIGS]:
        raise InputError(f"--only {unknown}: name configs {sorted(CONFIGS)} or formats {sorted(FORMATS)}")
    configs = [replace(c, cases=formats, seeds=(0,)) for c in _configs() if c.name in names]
    jobs, spent = jobs_of(choose(configs, (), options.seeds), options.data_root), Meter()
    rows = run(jobs, options, on_job, run_formats, "rows-")
    return {"rows": rows, "environment": environment(options), "cost": spent.facts(len(jobs), 0)}


def _configs() -> tuple[Config, ...]:
    return PROFILES["quick"].configs


def run_formats(job: Any) -> list[Row]:
    """The rows of one training run; the job's `cases` are the formats."""
    torch.set_num_threads(job.config.training.threads)
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        start = begin(job, Path(folder))
        result = record(start.spec, start.factory, start.train, start.plan)
        settling = settling_of(start.spec, start.factory, start.train, start.plan, result)
        references = {}
        for case in CASES:
            forget = draw(case, start.truth, job.seed)
            references[case] = retrain_without(start.spec, start.factory, start.train, forget).weights
        found = []
        for name in job.cases:
            capture = start.plan.settings.model_copy(update={"settled": FORMATS[name]})
            plan = replace(start.plan, settings=capture, ledgers=ledgers_for(capture))
            begun = time.process_time()
            manifest = seal_run(start.spec, start.train, plan, result, settling)
            seconds = time.process_time() - begun
            ledger = open_ledger(plan.destination, run_id=manifest.run_id)
            figures = _figures(start, result, ledger, references, job.seed)
            place = {"dataset": job.config.data.source, "model": job.config.model}
            place |= {"optimizer": job.config.optimizer, "seed": job.seed, "format": name}
            size = bytes_per_sample(ledger, list(ledger.manifest.entries), len(start.train))
            found.append({**place, "bytes_per_sample": size, "seal_seconds": seconds, **figures})
            shutil.rmtree(plan.destination)
        return found


def _figures(
    start: Start, result: TrainingResult, ledger: SealedLedger, references: Mapping[str, Weights], seed: int
) -> dict[str, Any]:
    """By forget set: KL on it to the retrained model and accuracies; and the time of a deletion."""
    found: dict[str, Any] = {}
    for case, reference in references.items():
        forget, times = draw(case, start.truth, seed), []
        for _ in range(REPEATS if case == TEN else 1):
            done = unlearn(SETTLED, ledger, result.weights, forget)
            times.append(1000 * done.seconds)
        found[case] = _compared(start, done.weights, reference, sorted(forget))
        if case == TEN:
            found["delete_ms"] = median(times)
    return found


def three_sets(start: Start, forget: list[int]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the forgotten, of the other training samples, and of the test set."""
    keep = torch.ones(len(start.train), dtype=torch.bool)
    keep[forget] = False
    train, test = start.train, start.test
    return {
        "forget": (train.inputs[forget], train.labels[forget]),
        "retain": (train.inputs[keep], train.labels[keep]),
        "test": (test.inputs, test.labels),
    }


def _compared(start: Start, weights: Weights, reference: Weights, forget: list[int]) -> dict[str, float]:
    model, sets = start.factory(), three_sets(start, forget)
    model.load_state_dict(dict(reference))
    target = predict(model, sets["forget"][0])
    model.load_state_dict(dict(weights))
    own = {name: predict(model, inputs) for name, (inputs, _) in sets.items()}
    figures = {f"{name}_accuracy": accuracy(own[name], labels) for name, (_, labels) in sets.items()}
    return {"kl_forget": kl(target, own["forget"])} | figures
