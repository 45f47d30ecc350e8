"""How good the kappa is that pilot deletions choose, against the best one that a retrained model shows.

    amnesiac bench kappa

Claim:     the rule's KL on the forget set is within 10 % of the best of nine kappas, or within retraining's spread.
Procedure: train with capture, measure the curvature, let the pilots choose; then settle the forget set in memory (not
           rounded to rows) with each of nine kappas from .5 to 8, and compare with the model retrained without it.
Runs:      MNIST-5k (4,000 training samples), MLP under SGD, momentum and Adam, 1 % and 10 % at random; seeds 0 and 1
           (`--seeds`), the CNN too with `--only cnn-sgd --only cnn-momentum`. Settings of the forgetting benchmark.
Rows:      kappas, kl (of each, on the forget set, nats), rule, rule_kl, best, best_kl, regret = rule_kl / best_kl,
           spread_kl: of a retraining with another seed. One row a run and forget set.
Hardware, versions, n: in the result's `environment` and `summary`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amnesiac.curvature import Kappa, Pilot
from amnesiac.curvature.pilot import FEW
from amnesiac.evaluation import kl, predict
from amnesiac.progress import silent
from amnesiac.training import RunSpec, record, retrain_without
from amnesiac.training.settling import curvature_of, pilot_of, probe_of
from benchmarks.forgetting import Meter, OnJob, Options, environment, run
from benchmarks.forgetting_cases import ONE, PROFILES, TEN, Config, choose, draw, jobs_of
from benchmarks.forgetting_run import OTHER_SEED, Row, Weights
from benchmarks.forgetting_start import Start, begin

CLOSE = 1.1
DEFAULT = ("mlp-sgd", "mlp-momentum", "mlp-adam")


def kappa_benchmark(options: Options, on_job: OnJob) -> dict[str, Any]:
    """{"rows", "summary", "environment", "cost"}; raises InputError for a word of `only` that names nothing."""
    jobs, spent = jobs_of(choose(_configs(), options.only or DEFAULT, options.seeds), options.data_root), Meter()
    rows = run(jobs, options, on_job, run_kappas, "kappa-")
    cost = spent.facts(len(jobs), 0)
    return {"rows": rows, "summary": summary(rows), "environment": environment(options), "cost": cost}


def _configs() -> list[Config]:
    """The quick profile's, with both random forget sets; the CNN under Adam from the calibration profile."""
    adam = [c for c in PROFILES["calibration"].configs if c.name == "cnn-adam"]
    return [replace(c, cases=(ONE, TEN), seeds=(0, 1)) for c in (*PROFILES["quick"].configs, *adam)]


def run_kappas(job: Any) -> list[Row]:
    """The rows of one training run."""
    torch.set_num_threads(job.config.training.threads)
    with tempfile.TemporaryDirectory(prefix="kappa-") as folder:
        start = begin(job, Path(folder))
        final = record(start.spec, start.factory, start.train, start.plan).weights
        probe = probe_of(start.spec, start.factory, start.train, start.plan)
        curvature = curvature_of(start.spec, start.plan, probe)
        with pilot_of(start.plan, probe, curvature, final) as pilot:
            rule = pilot.few(None, silent).kappa.output
            return [_row(job, start, pilot, rule, case) for case in job.cases]


def _row(job: Any, start: Start, pilot: Pilot, rule: float, case: str) -> Row:
    forget = sorted(draw(case, start.truth, job.seed))
    model, inputs = start.factory(), start.train.inputs[forget]

    def logits(weights: Weights) -> torch.Tensor:
        model.load_state_dict(dict(weights))
        return predict(model, inputs)

    deleted = pilot.deletions(np.array(forget))
    reference = logits(retrain_without(start.spec, start.factory, start.train, forget).weights)
    found = [kl(reference, logits(deleted(Kappa(value, value)))) for value in FEW]
    other = kl(reference, logits(_retrained_otherwise(start, forget)))
    place = {"case": case, "dataset": job.config.data.source, "model": job.config.model}
    place |= {"optimizer": job.config.optimizer, "seed": job.seed, "kappas": list(FEW), "kl": found}
    return place | _judged(rule, found) | {"spread_kl": other}


def _retrained_otherwise(start: Start, forget: Sequence[int]) -> Weights:
    """Another initialisation and order."""
    own = start.spec
    spec = RunSpec(own.seed + OTHER_SEED, own.model, own.training, own.data_hash)
    return retrain_without(spec, start.factory_of(spec.seed), start.train, forget).weights


def _judged(rule: float, found: Sequence[float]) -> dict[str, float]:
    best, chosen = int(np.argmin(found)), FEW.index(rule)
    return {
        "rule": rule, "rule_kl": found[chosen], "best": FEW[best], "best_kl": found[best],
        "regret": found[chosen] / found[best],
    }  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the rule, and of a constant 2: regrets, and the share of rows within 10 % of the best KL, or with an excess
    over it that is below what two retrainings differ by.
    """
    two = [row | _judged(2.0, row["kl"]) for row in map(dict, rows)]
    return {"rule": _shares(rows), "constant 2": _shares(two)}


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    regrets = np.array([row["regret"] for row in rows])
    within = regrets <= CLOSE
    noise = np.array([row["rule_kl"] - row["best_kl"] < row["spread_kl"] for row in rows])
    return {
        "n": len(rows),
        "geometric_mean_regret": float(np.exp(np.log(regrets).mean())),
        "largest_regret": float(regrets.max()),
        "within_10_percent": float(within.mean()),
        "within_10_percent_or_the_spread": float((within | noise).mean()),
        "largest_excess_over_spread": float(max((r["rule_kl"] - r["best_kl"]) / r["spread_kl"] for r in rows)),
    }
