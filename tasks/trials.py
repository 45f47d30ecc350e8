"""Trial deletions: subtract from the published model in memory, compare with retraining; nothing is staged or erased.

A trial is a function of numbers: who is drawn follows from its own, so trials can be carried out anywhere, at once.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from amnesiac.data import PreparedDataset
from amnesiac.durable import whole_folder, write_bytes, write_json
from amnesiac.errors import InputError
from amnesiac.evaluation import compare, to_png, trial_row, trials_figure, trials_table
from amnesiac.hashing import hash_tensors
from amnesiac.ledger import SealedLedger
from amnesiac.models import StateDict
from amnesiac.publication import Subtraction, Version, rounded, state_of
from amnesiac.publication import subtract as subtract_groups
from amnesiac.requests import ForgetSet
from amnesiac.seeding import numpy_generator
from amnesiac.training import retrain_without
from tasks.catalog import catalog
from tasks.deletion import confidence_of, last_weights, withdrawn_hash
from tasks.evaluation import sets_of
from tasks.opaque import opaque
from tasks.parallel import spread
from tasks.reporting import image_uri
from tasks.training import model_factory, other_runs


@dataclass(frozen=True)
class TrialPlan:
    """What is tried.

    random: batches of randomly drawn samples;  share: of the training samples, in each;  classes: one batch each
    """

    random: int = 4
    share: float = 0.01
    classes: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One batch: all of class `class_name`, or the `number`-th draw of `share`."""

    label: str
    number: int
    share: float
    seed: int
    class_name: str | None = None


@dataclass(frozen=True)
class _Standing:
    """Where deletions have come to: what the next batch would start from."""

    ledger: SealedLedger
    trained: StateDict | None
    version: Version | None
    start: Subtraction

    @property
    def before(self) -> StateDict:
        """The weights that are in use."""
        return self.version.weights() if self.version else self.trained or {}


@task(name="plan the trials", cache_policy=NO_CACHE, persist_result=False)
@opaque
def plan_trials(plan: TrialPlan) -> list[Trial]:
    """The batches to try. Raises InputError where nothing can be tried, naming what is wrong."""
    names = catalog().dataset().class_names
    if unknown := [name for name in plan.classes if name not in names]:
        raise InputError(f"no class is called {unknown}: choose from {', '.join(names[:20])}")
    if not 0 < plan.share < 1:
        raise InputError(f"share is {plan.share}: give a part of the training samples, between 0 and 1")
    drawn = [Trial(f"random {k + 1}", k, plan.share, plan.seed) for k in range(plan.random)]
    trials = drawn + [Trial(f"class {name}", 0, plan.share, plan.seed, name) for name in plan.classes]
    if not trials:
        raise InputError("nothing to try: ask for random batches, or name classes")
    standing, dataset = _standing(), catalog().dataset()
    for trial in trials:
        _drawn(trial, standing, dataset)
    return trials


@task(name="try a deletion", task_run_name="try {trial.label}", cache_policy=NO_CACHE, persist_result=False)
@opaque
def try_deletion(trial: Trial) -> dict[str, Any]:
    """One trial's figures (`trial_row`): its rows subtracted, and models retrained without it and without whoever is
    forgotten already.
    """
    at, standing, dataset = catalog(), _standing(), catalog().dataset()
    positions = _drawn(trial, standing, dataset)
    started = time.perf_counter()
    result = _subtracted(standing, positions)
    after, seconds = rounded(result.master or {}, standing.before), {"unlearn": time.perf_counter() - started}
    train = dataset.split("train")
    runs = (at.run_spec(), *other_runs())
    references = [retrain_without(run, model_factory(dataset, run.seed), train, result.positions) for run in runs]
    weights = {"original": standing.before, "unlearned": after, "retrained": references[0].weights}
    sets = {name: (own.inputs, own.labels) for name, own in sets_of(dataset, positions, result.positions).items()}
    others = [own.weights for own in references[1:]]
    metrics = compare(model_factory(dataset)(), weights, sets, dataset.class_names, others=others)
    said = confidence_of(standing.ledger, standing.trained, standing.version, result)
    return trial_row(trial.label, metrics, said, seconds | {"retrain": references[0].seconds})


def try_deletions(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """All trials, at once on Dask; for the body of a flow."""
    return spread([(try_deletion, (trial,)) for trial in trials])


@task(name="write the trials", cache_policy=NO_CACHE, persist_result=False)
def write_trials(plan: TrialPlan, rows: Sequence[dict[str, Any]]) -> None:
    """trials.json, trials.csv and trials.png in the reports' folder; table and plot as artifacts."""
    table = io.StringIO()
    pd.DataFrame(rows).to_csv(table, index=False)
    folder = catalog().reports / "trials"
    with whole_folder(folder) as aside:
        write_json(aside / "trials.json", {"seed": plan.seed, "share": plan.share, "rows": list(rows)})
        write_bytes(aside / "trials.csv", table.getvalue().encode())
        write_bytes(aside / "trials.png", to_png(trials_figure(rows)))
    create_table_artifact(trials_table(rows), key="trials", description="Trial deletions against retraining")
    create_image_artifact(image_uri(folder / "trials.png"), key="trials-kl")


def _standing() -> _Standing:
    at = catalog()
    trained, head = at.trained(), at.head()
    version = at.store().read(head.version) if head else None
    ledger = at.open_ledger(hash_tensors(trained) if trained is not None else withdrawn_hash())
    if version and version.facts["run_id"] != ledger.manifest.run_id:
        raise InputError(
            "the published version is of another run than the ledger: publish a version of this one, then try deletions"
        )
    return _Standing(ledger, trained, version, state_of(version) if version else Subtraction())


def _subtracted(standing: _Standing, positions: Sequence[int]) -> Subtraction:
    """`positions` were drawn here: no ids are needed, nor looked up."""
    forget = ForgetSet(tuple(positions), (), len(positions), {"trial": len(positions)}, 0)
    settings, trained = catalog().params().unlearning, standing.trained
    weights = trained if trained is not None else last_weights(standing.version)
    return subtract_groups(settings, standing.ledger, weights, standing.start, [forget])


def _drawn(trial: Trial, standing: _Standing, dataset: PreparedDataset) -> tuple[int, ...]:
    """Sorted training positions that have rows and aren't forgotten. Raises InputError where there are too few."""
    train, ledger = dataset.split("train"), standing.ledger
    there = ledger.captured & ~train.erased
    there[list(standing.start.positions)] = False
    if trial.class_name is not None:
        there &= train.labels.numpy() == dataset.class_names.index(trial.class_name)
    candidates = np.flatnonzero(there)
    count = len(candidates) if trial.class_name is not None else max(1, round(trial.share * len(train)))
    if not 0 < count <= len(candidates):
        raise InputError(f"{trial.label}: {count} samples are asked for, and {len(candidates)} can still be deleted")
    if trial.class_name is not None:
        return tuple(candidates.tolist())
    draw = numpy_generator(trial.seed, f"trial {trial.number}").choice(candidates, count, replace=False)
    return tuple(sorted(draw.tolist()))
