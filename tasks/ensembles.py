"""Members of an audit's ensembles: trained in a pool of processes, one Prefect task each, never twice."""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from amnesiac.auditing import (
    AuditVerdict,
    Member,
    MemberPool,
    Setup,
    curve_rows,
    damaged_members,
    draw_audit,
    draw_sets,
    ensemble_members,
    judge_audit,
    keep_member,
    klom_rows,
    left_out_members,
    member_pool,
    missing_members,
    needs_scores,
    read_ensembles,
    read_memorisation,
    set_figures,
)
from amnesiac.data import Split
from amnesiac.durable import whole_folder, write_bytes, write_json
from amnesiac.errors import AmnesiacError, InputError
from amnesiac.evaluation import to_png, to_svg
from amnesiac.hashing import hash_json
from amnesiac.progress import Progress
from amnesiac.settings import MethodName
from amnesiac.training.loop import threads
from amnesiac.unlearning import METHODS
from tasks.catalog import Catalog, catalog
from tasks.opaque import opaque
from tasks.parallel import at_once, on_dask, shared_files
from tasks.progress import shown_progress
from tasks.reporting import image_uri

LEAVING = 8
_log = logging.getLogger("amnesiac.ensembles")
_open: list["_Session"] = []


@dataclass
class _Session:
    """The audit that this process carries out: where members are trained (None: on Dask), and how many there are."""

    pool: MemberPool | None
    setup: Setup
    progress: Progress
    done: int = 0
    total: int = 0

    def count(self) -> None:
        """One more is there."""
        self.done += 1
        self.progress("members", self.done, self.total)


@dataclass(frozen=True)
class AuditPlan:
    """What is asked for.

    models:   on each side;  sets: of amnesiac.auditing.STRATA;  share: of the samples, in each set
    also:     further captured methods, to compare;  workers: processes
    """

    models: int = 16
    sets: tuple[str, ...] = ("random", "most memorised", "least memorised", "mislabelled")
    share: float = 0.01
    also: tuple[str, ...] = ()
    workers: int = 2


def load_setup(root: str, also: tuple[str, ...] = ()) -> Setup:
    """The project's training run on what may still be trained on; raises StoreError, InputError.

    Samples that are erased, or that HEAD has forgotten, are left out: an audit trains on nobody who asked to go.
    """
    at = Catalog(Path(root))
    params, dataset = at.params(), at.dataset()
    train = dataset.split("train")
    gone = train.erased.copy()
    if (head := at.head()) is not None:
        gone[list(at.store().read(head.version).positions())] = True
    train = train.take(np.flatnonzero(~gone))
    methods = _methods(params.unlearning.method, also)
    capture = params.capture.model_copy(update={"methods": methods})  # rows of other methods would go unused
    data_hash = hash_json([dataset.content_hash, np.flatnonzero(gone).tolist()])
    return Setup(
        train, _unseen(dataset.split("test").readable()), len(dataset.class_names), params.model, params.training,
        capture, methods, data_hash, params.seed,
    )  # fmt: skip


def _methods(judged: MethodName, also: Sequence[str]) -> tuple[MethodName, ...]:
    if unknown := [name for name in also if name not in METHODS]:
        raise InputError(f"no method is called {unknown}: choose from {', '.join(METHODS)}")
    others = [name for name in get_args(MethodName) if name in also and name != judged]
    return (judged, *others)


def _unseen(test: Split) -> Split:
    if len(test) < 5:
        raise InputError(f"the test split has {len(test)} samples, and an audit needs at least 5: prepare more data")
    return test


@contextmanager
def ensembles(plan: AuditPlan) -> Iterator[None]:
    """What `train_members` trains in, a pool here unless Dask has one; one audit at a time in a process."""
    at = catalog()
    load = partial(load_setup, str(at.root), plan.also)
    here = nullcontext() if on_dask() else member_pool(plan.workers, load, at.ensembles, at.scratch / "audit")
    with shown_progress("audit-members", "training the ensembles") as progress, here as pool:
        _open.append(_Session(pool, load(), progress))
        try:
            yield
        finally:
            _open.pop()


@task(name="plan left-out models", cache_policy=NO_CACHE, persist_result=False)
@opaque
def plan_memorisation(plan: AuditPlan) -> list[Member]:
    """The models that tell memorisation and aren't there yet; none where no set needs them."""
    return _missing(left_out_members(_open[-1].setup, LEAVING)) if needs_scores(plan.sets) else []


@task(name="plan ensembles", cache_policy=NO_CACHE, persist_result=False)
@opaque
def plan_ensembles(plan: AuditPlan, trained: Sequence[str]) -> list[Member]:
    """The members of the ensembles that aren't there yet. `trained`: what had to be there before."""
    return _missing(_members(plan))


@task(name="train a member", task_run_name="train {member.label}", cache_policy=NO_CACHE, persist_result=False)
@opaque
def train_member(member: Member, also: tuple[str, ...] = ()) -> str:
    """Train one member and keep it, in the pool of this process's audit; a Dask worker has none and trains it here.

    Returns its label. A Dask worker loads the setup for each member: between them it holds nobody's samples.
    """
    pool = _open[-1].pool if _open else None
    if pool is None:
        _train_here(member, also)
        return member.label
    try:
        pool.train(member).result()
    except BrokenProcessPool as error:
        raise AmnesiacError(
            f"a process that trained {member.label} was killed ({error}), most likely for want of memory: run the "
            "audit again with --workers 1; members that are there are kept"
        ) from error
    return member.label


def train_members(plan: AuditPlan, members: Sequence[Member]) -> list[str]:
    """Train members at once, as many as there are processes; their labels. For the body of a flow."""
    session = _open[-1]
    done = at_once([(train_member, (member, plan.also)) for member in members], session.count)
    shared_files([catalog().ensembles / member.file_name(session.setup) for member in members])
    return done


def _train_here(member: Member, also: tuple[str, ...]) -> None:
    at = catalog()
    setup = load_setup(str(at.root), also)
    at.ensembles.mkdir(parents=True, exist_ok=True)
    with threads(setup.training.threads):
        keep_member(at.ensembles, setup, member, at.scratch / "audit")


@task(name="judge the ensembles", cache_policy=NO_CACHE, persist_result=False)
@opaque
def judge_ensembles(plan: AuditPlan, trained: Sequence[str]) -> dict[str, Any]:
    """Every figure of every set, the verdicts, and the figures drawn; written to pipeline_data/audit."""
    at, setup = catalog(), _open[-1].setup
    found = read_ensembles(at.ensembles, setup, _members(plan))
    with shown_progress("audit-figures", "comparing the ensembles") as progress:
        sets = {}
        for k, (name, one) in enumerate(found.items()):
            sets[name] = set_figures(one, setup.seed)
            progress("compare", k + 1, len(found))
    verdict = judge_audit(sets, setup.methods[0])
    result = _result(plan, setup, sets, verdict)
    _write(at, result)
    return result


@task(name="show the audit", cache_policy=NO_CACHE, persist_result=False)
def show_audit(result: dict[str, Any]) -> None:
    """Verdict, table and figures as artifacts."""
    verdict = result["verdict"]
    create_markdown_artifact(f"**{verdict['sentence']}**\n\n{verdict['check']}", key="audit-verdict")
    create_table_artifact(audit_table(result), key="audit", description="U-LiRA against retrained models; ideal: .5")
    for path in sorted(catalog().audit.glob("*.png")):
        create_image_artifact(image_uri(path), key=f"audit-{path.stem}")


def audit_table(result: dict[str, Any]) -> list[dict[str, str]]:
    """One line a set and model, as text: what the dashboard and the terminal show."""
    return [
        {
            "forget set": place,
            "model": model,
            "AUC": f"{own['ulira']['auc']:.3f} [{own['ulira']['auc_low']:.3f}, {own['ulira']['auc_high']:.3f}]",
            "TPR at 1 % FPR": f"{own['ulira']['tpr_at_1_fpr']:.3f}",
            "KLoM": f"{own['klom_forget']['0.5']:.2f}",
            "null band": f"{figures['null_band']['low']['0.5']:.2f}–{figures['null_band']['high']['0.5']:.2f}",
            "F": f"{own['epsilon']['score']:.3f}",
            "ToW": f"{own['tow']:.3f}",
            "relearn": "–" if own["relearn_ratio"] is None else f"{own['relearn_ratio']:.2f}",
        }
        for place, figures in result["sets"].items()
        for model, own in figures["models"].items()
        if "ulira" in own
    ]


def read_audit() -> dict[str, Any] | None:
    """The last audit of this project, None where there was none."""
    path = catalog().audit / "audit.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _members(plan: AuditPlan) -> list[Member]:
    at, setup = catalog(), _open[-1].setup
    scores = None
    if needs_scores(plan.sets):
        scores = read_memorisation(at.ensembles, setup, left_out_members(setup, LEAVING))
    return ensemble_members(setup, draw_sets(setup, plan.sets, plan.share, scores), plan.models)


def _missing(members: list[Member]) -> list[Member]:
    at, setup = catalog(), _open[-1].setup
    for member, error in damaged_members(at.ensembles, setup, members):
        _log.warning("%s is trained again: %s", member.label, error)
    found = missing_members(at.ensembles, setup, members)
    _log.info("%d of %d members are there, %d to train", len(members) - len(found), len(members), len(found))
    _open[-1].done, _open[-1].total = 0, len(found)
    return found


def _result(plan: AuditPlan, setup: Setup, sets: dict[str, Any], verdict: AuditVerdict) -> dict[str, Any]:
    at, params = catalog(), catalog().params()
    return {
        "method": setup.methods[0],
        "models": plan.models,
        "share": plan.share,
        "run": at.run_spec().run_id(params.capture),
        "settings": {"data": params.data.source, "model": params.model.factory, "epochs": params.training.epochs},
        "sets": sets,
        "verdict": verdict.facts(),
    }


def _write(at: Catalog, result: dict[str, Any]) -> None:
    sets = result["sets"]
    with whole_folder(at.audit) as aside:
        write_json(aside / "audit.json", result)
        for name, figure in draw_audit(sets).items():
            write_bytes(aside / f"{name}.svg", to_svg(figure).encode())
            write_bytes(aside / f"{name}.png", to_png(figure))
        pd.DataFrame(curve_rows(sets)).to_csv(aside / "roc.csv", index=False)
        pd.DataFrame(klom_rows(sets)).to_csv(aside / "klom.csv", index=False)
