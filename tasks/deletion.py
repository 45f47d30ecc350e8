"""Deletion requests and batches: file, plan, subtract, repair, write the unlearned model."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.durable import whole_folder, write_json
from amnesiac.errors import SpecMismatch
from amnesiac.hashing import hash_tensors
from amnesiac.models import load_weights, save_weights
from amnesiac.requests import (
    DeletionRequest,
    FilingResult,
    ForgetSet,
    Journal,
    Pointer,
    RequestDraft,
    draw_random,
    pending,
    read_pointer,
    resolve,
    write_pointer,
)
from amnesiac.settings import Settings
from amnesiac.training import repair, retrain_without
from amnesiac.unlearning import Confidence, confidence, unlearn
from tasks.catalog import catalog
from tasks.progress import shown_progress
from tasks.timings import keep_seconds
from tasks.training import MODEL, model_factory

REPAIRED = "repaired.safetensors"
CORRECTION = "correction.safetensors"
RETRAINED = "retrained.safetensors"
VERSION = "version.json"
FLAGGED_EPOCHS = 0.25

_log = logging.getLogger("amnesiac.deletion")


class NewRequest(Settings):
    """A deletion request as a flow parameter. Opaque in the dashboard only if `values` are: prefer `amnesiac request
    add`.

    Exactly one of: `samples`, `subject`, `classes`, `random_count` (a seeded draw of training samples, for
    experiments).
    """

    samples: tuple[str, ...] = ()
    subject: str | None = None
    classes: tuple[str, ...] = ()
    random_count: int | None = None
    random_seed: int = 0


@dataclass(frozen=True)
class Batch:
    """What a deletion batch covers, without an id of a person.

    requests: all requests that the new version covers;  new: those of them that the published version doesn't
    """

    pointer: Pointer
    requests: int
    new: int


@task(name="file requests", cache_policy=NO_CACHE, persist_result=False)
def file_new_requests(requests: Sequence[NewRequest]) -> int:
    """Journal the requests of a flow's parameters; how many of them are new."""
    if not requests:
        return 0
    return len(file_requests([draft(request) for request in requests]).filed)


def file_requests(drafts: Sequence[RequestDraft]) -> FilingResult:
    """Journal requests after checking every id against the prepared data; raises RequestError, and then nothing is
    filed.
    """
    return catalog().open_journal().file(drafts, catalog().dataset().index)


def draft(request: NewRequest) -> RequestDraft:
    """A request as the journal takes it."""
    if request.random_count is not None:
        return draw_random(catalog().dataset().index, request.random_seed, count=request.random_count)
    if request.subject is not None:
        return RequestDraft("subject", (request.subject,))
    return RequestDraft("class", request.classes) if request.classes else RequestDraft("samples", request.samples)


def plan_requests() -> None:
    """Let the next version cover everything journalled so far: move the pointer that DVC sees. Under the writer
    lock.

    Raises SpecMismatch when the journal no longer holds what the pointer names: a journal that was lost must not take
    deletions back.
    """
    journal, path = catalog().open_journal(), catalog().requests
    if path.exists():
        _check_held(journal, path)
    pointer = journal.pointer()
    if not path.exists() or read_pointer(path) != pointer:
        write_pointer(path, pointer)


def _check_held(journal: Journal, path: Path) -> None:
    try:
        journal.read_prefix(read_pointer(path))
    except SpecMismatch as error:
        raise SpecMismatch(f"{error}. To begin anew with the journal as it is, remove {path}") from error


def applied_requests() -> frozenset[str]:
    """Ids of the requests that the unlearned model covers."""
    path = catalog().unlearned / VERSION
    return frozenset(json.loads(path.read_text())["requests"]) if path.exists() else frozenset()


def pending_requests() -> tuple[DeletionRequest, ...]:
    """Requests that the unlearned model doesn't cover yet."""
    return pending(catalog().open_journal().requests(), applied_requests())


@task(name="plan the batch", cache_policy=NO_CACHE, persist_result=False)
def plan_batch() -> Batch:
    """Which requests the new version covers: the journal's prefix that the pointer names."""
    requests, pointer = planned_requests(read_pointer(catalog().requests))
    return Batch(pointer, len(requests), len(pending(requests, applied_requests())))


@task(name="subtract the deltas", cache_policy=NO_CACHE, persist_result=False)
def subtract(batch: Batch) -> dict[str, Any]:
    """Compute the unlearned model from the original and the ledger, repair it if the settings say so, and write
    both.
    """
    at, params = catalog(), catalog().params()
    weights = load_weights(at.model / MODEL)
    ledger = at.open_ledger(hash_tensors(weights))
    requests, _ = planned_requests(batch.pointer)
    forget = resolve(requests, at.dataset().index)
    result = unlearn(params.unlearning, ledger, weights, forget.rows)
    keep_seconds("unlearn", result.seconds)
    found = confidence(ledger, weights, result.master, forget.rows, params.unlearning.confidence)
    repaired = _repaired(result.weights, forget, _repair_epochs(found))
    retrained = _retrained(forget) if _acts(found, "needs_retraining", "retrain") else None
    files = {MODEL: result.weights, REPAIRED: repaired, RETRAINED: retrained, CORRECTION: result.correction}
    version = _version(batch, requests, forget) | {
        "run_id": ledger.manifest.run_id,
        "weights_sha256": hash_tensors(result.weights),
        "repaired_sha256": hash_tensors(repaired) if repaired else None,
        "retrained_sha256": hash_tensors(retrained) if retrained else None,
        "correction_sha256": hash_tensors(result.correction) if result.correction else None,
        "rows": result.rows,
        "bytes_per_row": result.row_bytes,
        "confidence": asdict(found) if found else None,
        "published": _published(found, files),
    }
    _write_version(files, version)
    return version


def planned_requests(pointer: Pointer) -> tuple[tuple[DeletionRequest, ...], Pointer]:
    """The journal's requests up to a pointer; none, and no journal needed, for the pointer of an empty one."""
    return (catalog().open_journal().read_prefix(pointer) if pointer.count else ()), pointer


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


def _retrained(forget: ForgetSet) -> dict[str, torch.Tensor]:
    at, dataset = catalog(), catalog().dataset()
    with shown_progress("retrain", "retraining without the forget set") as progress:
        train, factory = dataset.split("train"), model_factory(dataset)
        result = retrain_without(at.run_spec(), factory, train, forget.rows, progress=progress)
    keep_seconds("retrain", result.seconds)
    return result.weights


def _repaired(weights: Mapping[str, torch.Tensor], forget: ForgetSet, epochs: float) -> dict[str, torch.Tensor] | None:
    at, settings = catalog(), catalog().params().unlearning.repair.model_copy(update={"epochs": epochs})
    if epochs == 0 or not forget.rows:
        return None
    dataset = at.dataset()
    with shown_progress("repair", f"repair on retained data, {epochs} epochs") as progress:
        train = dataset.split("train")
        result = repair(at.run_spec(), model_factory(dataset), weights, train, forget.rows, settings, progress=progress)
    keep_seconds("repair", result.seconds)
    return result.weights


def _version(batch: Batch, requests: Sequence[DeletionRequest], forget: ForgetSet) -> dict[str, Any]:
    settings = catalog().params().unlearning
    return {
        "method": settings.method,
        "settings": settings.model_dump(mode="json"),
        "pointer": asdict(batch.pointer),
        "requests": [request.request_id for request in requests],
        "samples": len(forget.rows),
        "subjects": forget.n_subjects,
        "not_trained": forget.not_trained,
    }


def _write_version(files: Mapping[str, Mapping[str, torch.Tensor] | None], version: dict[str, Any]) -> None:
    with whole_folder(catalog().unlearned) as aside:
        for name, tensors in files.items():
            if tensors is not None:
                save_weights(aside / name, tensors)
        write_json(aside / VERSION, version)
