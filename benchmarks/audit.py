"""Are models that forgot by settled deltas told from models that never knew? Ensembles, on MNIST-5k.

    amnesiac bench audit --models 32          (amnesiac audit does the same for a project's own data and settings)

Claim:     for 1 % random forgetting U-LiRA's AUC of settled-unlearned against retrained models has .5 within its 95 %
           interval; plain subtraction's hasn't. Held-out retrainings pass the audit, untouched originals fail it.
           What was measured, and where the claim is missed: docs/evidence.md.
Sets:      1 % of the training samples (40): random, most memorised, least memorised, mislabelled (wrong labels).
Training:  `forgetting_cases` names it (mlp-sgd, mlp-momentum, mlp-adam: MLP 784-128-10); a seed a model.
Cost:      a model a side is a run with capture (two with the mislabelled set) and two retrainings a set.
Hardware, versions, CPU seconds, n: in the result.
"""

import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amnesiac.auditing import (
    STRATA,
    Member,
    MemberPool,
    Setup,
    draw_sets,
    ensemble_members,
    judge_audit,
    left_out_members,
    member_pool,
    missing_members,
    needs_scores,
    read_ensembles,
    read_memorisation,
    set_figures,
)
from amnesiac.auditing.strata import RANDOM
from amnesiac.data import load_samples, open_dataset, prepare_dataset
from amnesiac.errors import InputError
from amnesiac.settings import CaptureSettings, ModelSettings
from benchmarks.forgetting import Options as Machine
from benchmarks.forgetting import environment
from benchmarks.forgetting_cases import PROFILES

METHOD, PLAIN = "settled", "per-sample-delta"
OnMember = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """models: on each side;  leaving: models that leave a quarter out;  folder: keeps members, a killed run goes on"""

    config: str = "mlp-sgd"
    models: int = 32
    sets: tuple[str, ...] = STRATA
    share: float = 0.01
    leaving: int = 8
    seed: int = 0
    workers: int = 2
    folder: Path | None = None
    limit: int | None = None
    epochs: int | None = None


def load_setup(options: Options) -> Setup:
    """The setup of a config of the forgetting benchmark; raises InputError for one that isn't there."""
    configs = {config.name: config for profile in PROFILES.values() for config in profile.configs}
    if options.config not in configs:
        raise InputError(f"no config {options.config!r}: choose from {', '.join(sorted(configs))}")
    config = configs[options.config]
    data = config.data.model_copy(update={"limit": options.limit}) if options.limit else config.data
    training = config.training.model_copy(update={"epochs": options.epochs}) if options.epochs else config.training
    with TemporaryDirectory(prefix="audit-data-") as folder:
        prepare_dataset(load_samples(data, None, 0), data, 0, Path(folder))
        dataset = open_dataset(Path(folder))
        train, test, classes = dataset.split("train"), dataset.split("test"), len(dataset.class_names)
    capture = CaptureSettings(methods=(METHOD, PLAIN))
    model = ModelSettings(factory=config.model)
    return Setup(train, test, classes, model, training, capture, capture.methods, dataset.content_hash, options.seed)


def benchmark(options: Options, on_member: OnMember) -> dict[str, Any]:
    """Train what is missing, compare, judge; the result as JSON, `targets` as in the other benchmarks."""
    with TemporaryDirectory(prefix="audit-") as own:
        folder = options.folder or Path(own) / "members"
        started, used = time.perf_counter(), _cpu_seconds()
        sets = _figures(options, load_setup(options), folder, Path(own) / "scratch", on_member)
        cost = {"seconds": time.perf_counter() - started, "cpu_seconds": _cpu_seconds() - used}
    verdict = judge_audit(sets, METHOD)
    return {
        "config": options.config,
        "models": options.models,
        "sets": sets,
        "verdict": verdict.facts(),
        "targets": targets(sets),
        "cost": cost,
        "environment": environment(Machine(workers=options.workers)),
    }


def targets(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """What must be shown, each |AUC - .5| beside the half of its interval that lies towards .5."""
    wanted = [(name, METHOD, True) for name in sets if name == RANDOM]
    wanted += [(name, PLAIN, False) for name in sets if name == RANDOM]
    wanted += [(name, "retrained", True) for name in sets]
    return [_target(name, model, inside, sets[name]["models"][model]["ulira"]) for name, model, inside in wanted]


def _target(place: str, model: str, inside: bool, own: dict[str, Any]) -> dict[str, Any]:
    what = f"U-LiRA AUC of {model}: .5 is {'inside' if inside else 'outside of'} its 95 % interval"
    figures = {name: own[name] for name in ("auc", "auc_low", "auc_high")}
    return {"case": place, "what": what, **figures, "met": own["passes"] == inside}


def _figures(
    options: Options, setup: Setup, folder: Path, scratch: Path, on_member: OnMember
) -> dict[str, dict[str, Any]]:
    with member_pool(options.workers, partial(load_setup, options), folder, scratch) as pool:
        scores = None
        if needs_scores(options.sets):
            leaving = left_out_members(setup, options.leaving)
            _train(pool, missing_members(folder, setup, leaving), on_member)
            scores = read_memorisation(folder, setup, leaving)
        sets = draw_sets(setup, options.sets, options.share, scores)
        members = ensemble_members(setup, sets, options.models)
        _train(pool, missing_members(folder, setup, members), on_member)
    return {name: set_figures(found) for name, found in read_ensembles(folder, setup, members).items()}


def _train(pool: MemberPool, members: Sequence[Member], on_member: OnMember) -> None:
    futures = {pool.train(member): member for member in members}
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        on_member(futures[future].label, done, len(members))


def _cpu_seconds() -> float:
    """Of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
