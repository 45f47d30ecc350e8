"""Compare original, unlearned and retrained model, and write what people look at."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.data import PreparedDataset, Split
from amnesiac.durable import whole_folder, write_bytes, write_json
from amnesiac.errors import DamagedStore, StoreError
from amnesiac.evaluation import (
    ROLES,
    ForgottenExample,
    accuracy_rows,
    audit_from_json,
    compare,
    draw_figures,
    examples_figure,
    facts_from_json,
    facts_to_json,
    fidelity_rows,
    headline,
    membership_curves,
    per_class_rows,
    predict,
    render_markdown,
    render_report,
    to_png,
    to_svg,
)
from amnesiac.models import StateDict, load_weights
from amnesiac.publication import read_positions
from amnesiac.publication.version import FORGOTTEN
from tasks.catalog import Catalog, catalog
from tasks.deletion import REPAIRED
from tasks.opaque import opaque
from tasks.report_facts import audit_facts, read_version, staged_facts
from tasks.timings import keep_seconds, read_seconds
from tasks.training import MODEL, model_factory

_EXAMPLES = 8


@task(name="find the forget set", cache_policy=NO_CACHE, persist_result=False)
@opaque
def forget_set() -> tuple[int, ...]:
    """Positions of the training samples that the staged model was asked to forget."""
    return read_positions(catalog().unlearned / FORGOTTEN)


@task(name="compare the models", cache_policy=NO_CACHE, persist_result=False)
@opaque
def compare_models(forget: Sequence[int], retrained: Path, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Every model on forget, retain and test set, and the band of `others`; written as metrics.json."""
    started, at, dataset = time.perf_counter(), catalog(), catalog().dataset()
    model, reseeded = model_factory(dataset)(), [load_weights(path) for path in others]
    metrics = compare(model, _weights(at, retrained), _inputs(dataset, forget), dataset.class_names, others=reseeded)
    keep_seconds("evaluate", time.perf_counter() - started)
    metrics["seconds"] = _seconds(retrained, others)
    write_json(at.metrics, metrics)
    return metrics


@task(name="write the report", cache_policy=NO_CACHE, persist_result=False)
@opaque
def write_report(metrics: Mapping[str, Any], forget: Sequence[int], retrained: Path) -> Path:
    """Report, figures and tables for `dvc plots`; returns the report's path."""
    at, dataset = catalog(), catalog().dataset()
    curves = membership_curves(model_factory(dataset)(), _weights(at, retrained), _inputs(dataset, forget))
    record = {
        "version": read_version()["weights_sha256"],
        "metrics": dict(metrics),
        "curves": curves,
        "facts": staged_facts(metrics["seconds"]),
        "audit": audit_facts(),
    }
    return write_pages(at.evaluation, record, _examples(forget, retrained), with_files=True)


def write_pages(
    folder: Path, record: Mapping[str, Any], examples: Sequence[ForgottenExample] = (), with_files: bool = False
) -> Path:
    """A report as HTML, Markdown and JSON in a new folder, for what `read_record` returns; the HTML's path.

    `with_files`: also the figures as PNG and the tables that `dvc plots` reads.
    """
    metrics, facts, audit = record["metrics"], record["facts"], record["audit"]
    shown = json.dumps([metrics, record["curves"], asdict(audit) if audit else None])
    pictures = {"examples": examples_figure(examples)} if examples else {}
    svgs = _svgs(shown) | {name: to_svg(figure) for name, figure in pictures.items()}
    with whole_folder(folder) as aside:
        page = render_report(metrics, facts, svgs, audit)
        write_bytes(aside / "report.html", page.encode())
        write_bytes(aside / "report.md", render_markdown(metrics, facts, audit).encode())
        write_bytes(aside / "report.json", (json.dumps(_as_json(record), indent=1) + "\n").encode())
        if with_files:
            _write_files(aside, record, _pngs(shown) | {name: to_png(figure) for name, figure in pictures.items()})
    return folder / "report.html"


# A batch's report is written again whenever something has happened to the batch, and drawing is most of that: what was
# drawn of the same figures is kept. Never the pictures of samples.
@lru_cache(maxsize=2)
def _svgs(shown: str) -> dict[str, str]:
    metrics, curves, audit = json.loads(shown)
    figures = draw_figures(metrics, curves=curves, audit=audit_from_json(audit) if audit else None)
    return {name: to_svg(figure) for name, figure in figures.items()}


@lru_cache(maxsize=2)
def _pngs(shown: str) -> dict[str, bytes]:
    metrics, curves, audit = json.loads(shown)
    figures = draw_figures(metrics, curves=curves, audit=audit_from_json(audit) if audit else None)
    return {name: to_png(figure) for name, figure in figures.items()}


def _write_files(folder: Path, record: Mapping[str, Any], pngs: Mapping[str, bytes]) -> None:
    for name, png in pngs.items():
        write_bytes(folder / f"{name}.png", png)
    tables = {
        "accuracy": accuracy_rows(record["metrics"]),
        "per_class": per_class_rows(record["metrics"]),
        "fidelity": fidelity_rows(record["metrics"]),
    }
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    curves = pd.DataFrame(record["curves"], columns=["model", "fpr", "tpr"])
    wide = curves.pivot_table(index="fpr", columns="model", values="tpr").reindex(columns=list(ROLES))
    wide.to_csv(folder / "attack.csv")


def _as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    verdict = headline(record["metrics"], record["facts"].published)
    audit = asdict(record["audit"]) if record["audit"] else None
    said = {"level": verdict.level, "sentence": verdict.sentence}
    return {"verdict": said, **record, "facts": facts_to_json(record["facts"]), "audit": audit}


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a report was written from; None where there is none. Raises DamagedStore."""
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        facts, audit = facts_from_json(found["facts"]), found["audit"]
        chosen = {name: found[name] for name in ("version", "metrics", "curves")}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read ({error}): restore it from a backup, or delete its folder") from error
    return chosen | {"facts": facts, "audit": audit_from_json(audit) if audit else None}


def sets_of(dataset: PreparedDataset, forget: Sequence[int], gone: Sequence[int] | None = None) -> dict[str, Split]:
    """Forget, retain and test set, without erased samples: there is nothing to measure a model on.

    gone: all positions that aren't retained, `forget` if it isn't given
    """
    train = dataset.split("train")
    keep = torch.ones(len(train), dtype=torch.bool)
    keep[list(forget if gone is None else gone)] = False
    retained = torch.nonzero(keep).flatten()
    sets = {"forget": train.take(forget), "retain": train.take(retained), "test": dataset.split("test")}
    return {name: split.readable() for name, split in sets.items()}


def _weights(at: Catalog, retrained: Path) -> dict[str, dict[str, torch.Tensor]]:
    before = _baseline(at)
    weights = {"original": before} if before else {}
    weights["unlearned"] = load_weights(at.unlearned / MODEL)
    if (at.unlearned / REPAIRED).exists():
        weights["repaired"] = load_weights(at.unlearned / REPAIRED)
    return weights | {"retrained": load_weights(retrained)}


def _baseline(at: Catalog) -> StateDict | None:
    """What doing nothing would leave: the trained model; once that is withdrawn, the version published before this one.

    None where that is withdrawn too.
    """
    if (trained := at.trained()) is not None:
        return trained
    head, store = at.head(), at.store()
    if head is None:
        return None
    before = head.predecessor if store.id_of(at.unlearned) == head.version else head.version
    return store.read(before).weights() if before in store.ids() else None


def rewrite_report() -> None:
    """The report once more without pictures of samples whose keys are destroyed; nothing where there is no report."""
    at = catalog()
    pictures = (at.evaluation / "examples.png").exists()
    if not pictures:
        return
    record = read_record(at.evaluation)
    if record is None:
        raise StoreError(
            f"{at.evaluation} holds pictures of erased samples, and no report.json to write it anew from: run "
            "`amnesiac evaluate --force`, then `amnesiac publish`"
        )
    write_pages(at.evaluation, record, with_files=True)


def _inputs(dataset: PreparedDataset, forget: Sequence[int]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (split.inputs, split.labels) for name, split in sets_of(dataset, forget).items()}


def _seconds(retrained: Path, others: Sequence[Path]) -> dict[str, float]:
    """Seconds by step, those that ran on this machine."""
    steps = {name: name for name in ("train", "seal", "unlearn", "repair", "evaluate")}
    steps |= {"retrain": f"retrain-{retrained.stem}"}
    steps |= {f"retrain, other seed {k}": f"retrain-{path.stem}" for k, path in enumerate(others, 1)}
    found = {name: read_seconds(step) for name, step in steps.items()}
    if not (catalog().unlearned / REPAIRED).exists():
        found.pop("repair")
    return {name: value for name, value in found.items() if value is not None}


def _examples(forget: Sequence[int], retrained: Path) -> Sequence[ForgottenExample]:
    """Some forgotten samples of a published data set; none of a user's own data, which the report must not show."""
    at, dataset = catalog(), catalog().dataset()
    if not forget or at.params().data.path is not None:
        return ()
    held = dataset.split("train").take(forget).readable()
    if not len(held):
        return ()
    chosen = held.take(np.arange(len(held))[:: max(1, len(held) // _EXAMPLES)][:_EXAMPLES])
    guesses: dict[str, list[str]] = {}
    for role, weights in _weights(at, retrained).items():
        model = model_factory(dataset)()
        model.load_state_dict(weights)
        guesses[role] = [dataset.class_names[k] for k in predict(model, chosen.inputs).argmax(1).tolist()]
    return [
        ForgottenExample(image, dataset.class_names[int(label)], {role: names[i] for role, names in guesses.items()})
        for i, (image, label) in enumerate(zip(chosen.inputs, chosen.labels, strict=True))
    ]
