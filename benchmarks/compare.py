"""The methods people would pick instead, beside settled deltas: fidelity against time against the data they need.

Claim:     settled deltas are nearest to retraining, or tied within what another seed changes, in KL and in |margin
           difference|, among all methods that don't read retained samples; the summary says where they stand among
           those that do.
Methods:   settled (this project), plain and raw_lr subtraction, doing nothing, twelve published methods
           (amnesiac.unlearning.peers), retraining with the same and with another seed: the spread.
Sets:      compare_cases: random, most memorised, mislabelled; the same for every method and model.
Strengths: each peer's one hyperparameter is chosen among five, on pilot sets and pilot runs of which nothing is
           reported (compare_search); what that cost is in `search`. Settled deltas have none: kappa is chosen at seal.
Rows:      as in `bench forgetting`, one a case, method and reported seed; `seconds` are CPU seconds of one thread.
           Further fields: uses, uses_retain_data, tow, relearn_ratio (each against the retraining of the same seed),
           klom_forget (median over the forget set; _p95), ulira_auc (_low, _high) and ulira_tpr_at_1_fpr over `members`
           models a side, against retrained models with other seeds. Rows of `retrained` are those figures' null.
Summary:   compare_summary, means over all members.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.compare_cases import (
    FOLDS,
    PROFILES,
    Profile,
    Sets,
    data_of,
    folds_of,
    memorisation,
    sets_by_memorisation,
)
from benchmarks.compare_ensembles import rows_of
from benchmarks.compare_run import Member, Shadow, run_member, run_shadow
from benchmarks.compare_search import Search, budget, chosen, run_search
from benchmarks.compare_summary import summarised
from benchmarks.forgetting import Meter, OnJob, Options, cached, environment, run
from benchmarks.forgetting_cases import MISLABELLED, Config, choose

__all__ = ["PROFILES", "Options", "Profile", "benchmark"]

Work = Callable[[list[Any], Callable[[Any], list[Any]]], list[Any]]
"""Jobs and what each does to what they return, one after another."""


def benchmark(profile: Profile, options: Options, on_job: OnJob) -> dict[str, Any]:
    """Run a profile; {"rows", "summary", "targets", "search", "forget_sets", "profile", "environment", "cost"} for
    JSON.

    Raises InputError for a word of `options.only` that names nothing, and whatever a run raises.
    """
    configs, spent = choose(profile.configs, options.only, (0,)), Meter()
    total, done, known = sum(_pieces(profile, config) for config in configs), 0, 0

    def work(jobs: list[Any], function: Callable[[Any], list[Any]]) -> list[Any]:
        nonlocal done, known
        before = done
        known += sum(cached(options.cache, job) is not None for job in jobs)
        found = run(jobs, options, lambda label, k, _: on_job(label, before + k, total), function)
        done += len(jobs)
        return found

    parts = [_of_config(profile, config, options, work) for config in configs]
    joined = {name: [line for part in parts for line in part[name]] for name in parts[0]}
    facts = {"name": profile.name, "members": profile.members, "pilots": list(profile.pilots)}
    facts |= {"reported_seeds": list(profile.reported), "left_out": list(profile.left_out)}
    return {**joined, "profile": facts, "environment": environment(options), "cost": spent.facts(total - known, known)}


def _pieces(profile: Profile, config: Config) -> int:
    runs = len(_runs(config))
    return FOLDS * profile.rounds + len(config.cases) * len(profile.pilots) + runs * profile.members


def _runs(config: Config) -> list[tuple[str, ...]]:
    """Cases that share a training run: mislabelled samples have one of their own."""
    clean = tuple(case for case in config.cases if case != MISLABELLED)
    return [cases for cases in (clean, (MISLABELLED,) if MISLABELLED in config.cases else ()) if cases]


def _of_config(profile: Profile, config: Config, options: Options, work: Work) -> dict[str, list[Any]]:
    """Forget sets, then strengths, then members."""
    root = options.data_root
    sets = _sets(profile, config, options, work)
    searches = [Search(config, case, sets.pilots[case], seed, root) for seed in profile.pilots for case in config.cases]
    trials = work(searches, run_search)
    strengths = chosen(trials)
    members = [
        Member(
            config, seed, {case: sets.reported[case] for case in cases}, {case: strengths[case] for case in cases},
            seed in profile.reported, root,
        )
        for cases in _runs(config)
        for seed in range(profile.members)
    ]  # fmt: skip
    records, place = work(members, run_member), {"config": config.name}
    summary, targets = summarised(records, place)
    return {
        "rows": [place | row for row in rows_of(records, profile.reported)], "summary": summary, "targets": targets,
        "search": [place | line for line in budget(trials, strengths)],
        "forget_sets": [place | line for line in _described(sets, config)],
    }  # fmt: skip


def _sets(profile: Profile, config: Config, options: Options, work: Work) -> Sets:
    """By the memorisation of models that are trained for it."""
    data = data_of(config, options.data_root)
    shadows = [Shadow(config, r, fold, options.data_root) for r in range(profile.rounds) for fold in range(FOLDS)]
    probabilities = np.array(work(shadows, run_shadow))
    left_out = np.zeros(probabilities.shape, bool)
    for k, shadow in enumerate(shadows):
        left_out[k, folds_of(len(data.train), shadow.round_)[shadow.fold]] = True
    return sets_by_memorisation(data.train.labels, memorisation(probabilities, left_out))


def _described(sets: Sets, config: Config) -> list[dict[str, Any]]:
    """Size and mean memorisation of the reported and the pilot sets."""
    scores = np.array(sets.scores)
    return [
        {
            "case": case,
            "samples": len(sets.reported[case]),
            "memorisation": None if case == MISLABELLED else float(scores[sets.reported[case]].mean()),
            "pilot_memorisation": None if case == MISLABELLED else float(scores[sets.pilots[case]].mean()),
        }
        for case in config.cases
    ]
