"""Staging: subtract what is to be forgotten from where the published version ended, repair, write the candidate."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.errors import KeyDestroyed
from amnesiac.hashing import hash_tensors
from amnesiac.ledger import SealedLedger
from amnesiac.models import StateDict, load_weights
from amnesiac.publication import (
    Origin,
    Subtraction,
    Version,
    continues,
    groups_of,
    origin,
    read_withdrawn,
    rounded,
    state_of,
    write_candidate,
)
from amnesiac.publication import subtract as subtract_groups
from amnesiac.requests import DeletionRequest, ForgetSet, read_pointer
from amnesiac.training import repair, retrain_without
from amnesiac.unlearning import Confidence, confidence
from tasks.catalog import catalog
from tasks.opaque import opaque
from tasks.progress import shown_progress
from tasks.requesting import opaque_ids, planned_requests, resolved
from tasks.timings import keep_seconds
from tasks.training import MODEL, model_factory

REPAIRED = "repaired.safetensors"
RETRAINED = "retrained.safetensors"
FLAGGED_EPOCHS = 0.25

_log = logging.getLogger("amnesiac.deletion")


@task(name="subtract the deltas", cache_policy=NO_CACHE, persist_result=False)
@opaque
def subtract() -> dict[str, Any]:
    """Stage the version that the pointer asks for: from HEAD and the new requests' rows where that goes, else from the
    original; repair it if the settings say so. Publishes nothing.
    """
    at, settings = catalog(), catalog().params().unlearning
    trained, pointer = at.trained(), read_pointer(at.requests)
    ledger = at.open_ledger(hash_tensors(trained) if trained is not None else withdrawn_hash())
    requests = planned_requests(pointer)
    wanted = origin(ledger, settings, pointer, [request.request_id for request in requests])
    version = _continued(wanted)
    weights = trained if trained is not None else last_weights(version)
    start = state_of(version) if version else Subtraction()
    forget_sets = _groups(requests, start, wanted)
    result = _subtracted(wanted, requests, ledger, weights, start, forget_sets)
    found = confidence_of(ledger, trained, version, result)
    files = _files(rounded(result.master or {}, weights), result.positions, found)
    facts = wanted.facts() | {
        "subjects": _subjects(result.positions),
        "not_held": (version.facts.get("not_held", {}) if version else {}) | _not_held(forget_sets),
        "repaired_sha256": _hash(files[REPAIRED]),
        "retrained_sha256": _hash(files[RETRAINED]),
        "confidence": asdict(found) if found else None,
        "published": _published(found, files),
    }
    return write_candidate(at.unlearned, result, files, facts)


def _subtracted(
    wanted: Origin, requests: Sequence[DeletionRequest], ledger: SealedLedger, weights: StateDict, start: Subtraction,
    forget_sets: Sequence[ForgetSet],
) -> Subtraction:  # fmt: skip
    result = subtract_groups(wanted.settings, ledger, weights, start, forget_sets)
    _refuse_unforgotten(ledger, result)
    keep_seconds("unlearn", result.seconds)
    new = len(requests) - start.requests
    _log.info("%d new requests of %d, %d rows read", new, len(requests), result.read)
    return result


def _continued(wanted: Origin) -> Version | None:
    """HEAD's version, if the wanted one goes on from it."""
    head, store = catalog().head(), catalog().store()
    version = store.read(head.version) if head else None
    return version if version and continues(version, wanted) else None


def withdrawn_hash() -> str:
    """Of the trained weights that were withdrawn; empty where there is nothing."""
    withdrawn = read_withdrawn(catalog().model)
    return withdrawn.weights_sha256 if withdrawn else ""


def last_weights(version: Version | None) -> StateDict:
    """What takes the place of the withdrawn trained weights; raises KeyDestroyed where only they would do."""
    if version is None:
        raise KeyDestroyed(
            "the trained model was withdrawn when a deletion batch was erased, and the version that is asked for "
            "doesn't go on from the published one (another run, method or scale, an older commit, or HEAD is lost): it "
            "can't be computed again. Go back to the settings and the commit of the published version, or run "
            "`amnesiac prepare --force` and `amnesiac train`"
        )
    version.check()
    return load_weights(version.subtracted)


def _refuse_unforgotten(ledger: SealedLedger, result: Subtraction) -> None:
    """Whoever was erased must be forgotten: their rows can't be subtracted any more."""
    left = set(np.flatnonzero(ledger.erased).tolist()) - set(result.positions)
    if left:
        raise KeyDestroyed(
            f"{len(left)} samples of this run were erased and the version asked for doesn't forget them: it can't be "
            "computed again, nor may it be published. Stage what goes on from HEAD (`amnesiac publish`)"
        )


def confidence_of(
    ledger: SealedLedger, trained: StateDict | None, version: Version | None, result: Subtraction
) -> Confidence | None:
    """From the trained weights; where they are withdrawn from those of HEAD, whose drift is known."""
    limits = catalog().params().unlearning.confidence
    if trained is not None or version is None:
        return confidence(ledger, trained or {}, result.master or {}, result.positions, limits)
    said = version.facts["confidence"] or {}
    drift = said.get("drift", 0.0)
    most = said.get("drift_at_most", drift)
    return confidence(ledger, version.master(), result.master or {}, result.positions, limits, drift, most)


def _groups(requests: Sequence[DeletionRequest], start: Subtraction, wanted: Origin) -> list[ForgetSet]:
    """The requests beyond `start`, in one group; from the original in those in which they were published then."""
    facts = wanted.facts()
    said = {name: facts[name] for name in ("run_id", "method", "pointer")} | {"scale": wanted.settings.scale}
    ends = (len(requests),) if start.groups else groups_of(catalog().batches(), said, len(requests))
    parts = zip((start.requests, *ends), ends, strict=False)
    return [resolved(requests[low:high]) for low, high in parts if low < high]


def _not_held(forget_sets: Sequence[ForgetSet]) -> dict[str, list[str]]:
    """What these requests name and the data doesn't hold, as keyed hashes by request id: for the report."""
    named = {name: values for forget in forget_sets for name, values in forget.not_held.items()}
    return opaque_ids(named)


def _files(weights: StateDict, forgotten: Sequence[int], found: Confidence | None) -> dict[str, StateDict | None]:
    """What may be published."""
    repaired = _repaired(weights, forgotten, _repair_epochs(found))
    retrained = _retrained(forgotten) if _acts(found, "needs_retraining", "retrain") else None
    return {MODEL: weights, REPAIRED: repaired, RETRAINED: retrained}


def _subjects(forgotten: Sequence[int]) -> int:
    """How many people these training samples belong to."""
    index = catalog().dataset().index
    train = index[index["split"] == "train"]
    return int(train.loc[train["row"].isin(list(forgotten)), "subject_id"].nunique())


def _hash(weights: Mapping[str, torch.Tensor] | None) -> str | None:
    return hash_tensors(weights) if weights is not None else None


def _acts(found: Confidence | None, verdict: str, *acts: str) -> bool:
    """Whether a deletion batch is flagged so, and the settings act on it."""
    return found is not None and found.verdict == verdict and catalog().params().unlearning.confidence.act in acts


def _flagged(found: Confidence | None) -> bool:
    return _acts(found, "needs_repair", "repair", "retrain") or _acts(found, "needs_retraining", "repair", "retrain")


def _repair_epochs(found: Confidence | None) -> float:
    """What the settings ask for in any case; a quarter of an epoch at least where a batch is flagged."""
    asked = catalog().params().unlearning.repair.epochs
    return max(asked, FLAGGED_EPOCHS) if _flagged(found) else asked


def _published(found: Confidence | None, files: Mapping[str, object]) -> str:
    """The file to publish: the subtraction's result, or what was done where that isn't good enough. Warns then."""
    if found is None or found.verdict == "good":
        return MODEL
    best = MODEL if not _flagged(found) else RETRAINED if files[RETRAINED] is not None else REPAIRED
    _log.warning("the deletion batch %s: %s; published: %s", found.verdict.replace("_", " "), found.reason, best)
    return best


def _retrained(forgotten: Sequence[int]) -> dict[str, torch.Tensor]:
    at, dataset = catalog(), catalog().dataset()
    with shown_progress("retrain", "retraining without the forget set") as progress:
        train, factory = dataset.split("train"), model_factory(dataset)
        result = retrain_without(at.run_spec(), factory, train, forgotten, progress=progress)
    keep_seconds("retrain", result.seconds)
    return result.weights


def _repaired(weights: StateDict, forgotten: Sequence[int], epochs: float) -> StateDict | None:
    at, settings = catalog(), catalog().params().unlearning.repair.model_copy(update={"epochs": epochs})
    if epochs == 0 or not forgotten:
        return None
    dataset = at.dataset()
    with shown_progress("repair", f"repair on retained data, {epochs} epochs") as progress:
        train = dataset.split("train")
        result = repair(at.run_spec(), model_factory(dataset), weights, train, forgotten, settings, progress=progress)
    keep_seconds("repair", result.seconds)
    return result.weights
