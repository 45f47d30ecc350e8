"""Compare original, unlearned and retrained model, and write what people look at."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.data import PreparedDataset, Split
from amnesiac.durable import whole_folder, write_bytes, write_json
from amnesiac.evaluation import (
    ForgottenExample,
    ReportFacts,
    accuracy_rows,
    compare,
    draw_figures,
    per_class_rows,
    predict,
    render_report,
    to_png,
    to_svg,
)
from amnesiac.models import StateDict, load_weights
from amnesiac.publication import read_positions, read_staged
from amnesiac.publication.version import FORGOTTEN
from tasks.catalog import Catalog, catalog
from tasks.deletion import REPAIRED
from tasks.opaque import opaque
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
def compare_models(forget: Sequence[int], retrained: Path) -> dict[str, Any]:
    """Every model on forget, retain and test set; written as metrics.json."""
    started, at, dataset = time.perf_counter(), catalog(), catalog().dataset()
    sets = {name: (split.inputs, split.labels) for name, split in _sets(dataset, forget).items()}
    metrics = compare(model_factory(dataset)(), _weights(at, retrained), sets, dataset.class_names)
    keep_seconds("evaluate", time.perf_counter() - started)
    metrics["seconds"] = _seconds(retrained)
    write_json(at.metrics, metrics)
    return metrics


@task(name="write the report", cache_policy=NO_CACHE, persist_result=False)
@opaque
def write_report(metrics: Mapping[str, Any], forget: Sequence[int], retrained: Path) -> Path:
    """Report, figures and tables for `dvc plots`; returns the report's path."""
    return _write_report(metrics, _examples(forget, retrained))


def _write_report(metrics: Mapping[str, Any], examples: Sequence[ForgottenExample]) -> Path:
    at = catalog()
    figures = draw_figures(metrics, examples)
    with whole_folder(at.evaluation) as aside:
        page = render_report(metrics, _facts(), {name: to_svg(figure) for name, figure in figures.items()})
        write_bytes(aside / "report.html", page.encode())
        for name, figure in figures.items():
            write_bytes(aside / f"{name}.png", to_png(figure))
        pd.DataFrame(accuracy_rows(metrics)).to_csv(aside / "accuracy.csv", index=False)
        pd.DataFrame(per_class_rows(metrics)).to_csv(aside / "per_class.csv", index=False)
    return at.evaluation / "report.html"


def read_version() -> dict[str, Any]:
    """What the staged model covers; raises DamagedStore."""
    return read_staged(catalog().unlearned)


def published_sentence(version: Mapping[str, Any]) -> str:
    """Which file a deletion batch published and why, where a prediction was made; else empty."""
    found = version["confidence"]
    if found is None:
        return ""
    verdict = found["verdict"].replace("_", " ")
    predicted = f"predicted divergence {found['predicted_kl']:.3g} nats, drift {found['drift']:.3g}"
    return f"published: {version['published']} ({verdict}: {predicted})"


def _sets(dataset: PreparedDataset, forget: Sequence[int]) -> dict[str, Split]:
    """Without erased samples: there is nothing to measure a model on."""
    train = dataset.split("train")
    keep = torch.ones(len(train), dtype=torch.bool)
    keep[list(forget)] = False
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
    if (at.evaluation / "examples.png").exists():
        _write_report(json.loads(at.metrics.read_text()), ())


def _seconds(retrained: Path) -> dict[str, float]:
    """Seconds by step, those that ran on this machine."""
    steps = {"train": "train", "unlearn": "unlearn", "repair": "repair", "evaluate": "evaluate"}
    found = {name: read_seconds(step) for name, step in (steps | {"retrain": f"retrain-{retrained.stem}"}).items()}
    if not (catalog().unlearned / REPAIRED).exists():
        found.pop("repair")
    return {name: value for name, value in found.items() if value is not None}


def _facts() -> ReportFacts:
    at, params, version = catalog(), catalog().params(), read_version()
    seconds: dict[str, float] = json.loads(at.metrics.read_text())["seconds"]
    optimizer = params.training.optimizer
    return ReportFacts(
        requests=len(version["requests"]),
        subjects=version["subjects"],
        samples=version["samples"],
        method=version["method"],
        data=params.data.source,
        model=params.model.factory,
        seconds=seconds,
        settings={
            "optimiser": f"{optimizer.name}, learning rate {optimizer.lr:g}, momentum {optimizer.momentum:g}",
            "epochs": params.training.epochs,
            "mini-batch": params.training.batch_size,
            "published": published_sentence(version) or version["published"],
            "ledger rows read": version["rows"],
            "bytes a row": version["bytes_per_row"],
        },
        version=version["weights_sha256"][:12],
        not_held=version.get("not_held", {}),
    )


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
