"""PUBLISHED → KEYS_DESTROYED: which batches are due, whom they erase, and the destruction of their keys.

What a later step needs to know of the erased is written into the journal before the first key goes, so that a killed
run goes on: key numbers, ids (for the scan), counts and keyed hashes (for the receipts). It goes with the receipts.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.erasure import Tombstones, marks
from amnesiac.errors import SpecMismatch, StoreError
from amnesiac.ledger import SealedLedger, open_ledger
from amnesiac.publication import read_withdrawn
from amnesiac.publication.version import MODEL
from amnesiac.requests import DeletionBatch, DeletionRequest, named_rows, value_hmac
from tasks.catalog import catalog
from tasks.opaque import opaque
from tasks.publishing import reach
from tasks.resting import head_of_batch

MARKED = 32  # samples, and keys of samples and steps
Mask = npt.NDArray[np.bool_]
_log = logging.getLogger("amnesiac.erasing")


@dataclass(frozen=True)
class Erased:
    """Whom a batch erases, as the journal holds it until the receipts.

    keys, steps: numbers of their keys, and of the keys of steps that saw them
    samples, subjects: ids that nothing may hold afterwards;  tombstones: subjects who asked for all of theirs
    left:     training samples that survive;  before: SHA-256 of the weights that were published before
    requests: by request id: train rows, keys, subjects, keyed hashes of what it named (`ids`, `not_held`)
    marks:    of some image rows, ledger rows and keys, by kind: `Mark` as lists;  marks_key: of their digests, hex
    clean:    stages that DVC called up to date before anything was purged; None until then
    """

    keys: tuple[int, ...]
    steps: tuple[int, ...]
    samples: tuple[str, ...]
    subjects: tuple[str, ...]
    tombstones: tuple[str, ...]
    left: int
    before: str
    requests: Mapping[str, Mapping[str, Any]]
    clean: tuple[str, ...] | None = None
    marks: Mapping[str, Sequence[Sequence[Any]]] = field(default_factory=dict)
    marks_key: str = ""


@task(name="destroy keys", cache_policy=NO_CACHE, persist_result=False)
@opaque
def destroy_keys(batch: DeletionBatch) -> DeletionBatch:
    """PUBLISHED → KEYS_DESTROYED."""
    return keys_destroyed(batch)


def keys_destroyed(batch: DeletionBatch) -> DeletionBatch:
    """Destroy the keys of all samples that the batch's requests name, in all splits, and of the steps that saw them.

    Raises SpecMismatch when the published version doesn't forget one of them.
    """
    return batch if batch.reached("KEYS_DESTROYED") else reach(_taken(batch), "KEYS_DESTROYED", _destroy)


def _taken(batch: DeletionBatch) -> DeletionBatch:
    """The batch with a fence of this run's: a run that was taken for dead can't go on with it."""
    return catalog().batches().take_over(batch)


def erased_by(batch: DeletionBatch) -> Erased:
    """What the journal holds of the batch's erasure; raises StoreError when it is missing."""
    held = catalog().batches().held(batch)
    if held is None:
        raise StoreError(
            f"the journal has lost what the erasure of batch {batch.number} needs: restore it from a backup that is "
            "newer than the destruction of its keys"
        )
    return Erased(**held)


def note(batch: DeletionBatch, erased: Erased) -> None:
    """Keep it in the journal."""
    catalog().batches().hold(batch, asdict(erased))


def _destroy(batch: DeletionBatch) -> dict[str, Any]:
    at = catalog()
    if at.batches().held(batch) is None:
        note(batch, _look_up(batch))
    erased, keys = erased_by(batch), at.key_store()
    numbers = np.array([*erased.keys, *erased.steps], np.int64)
    tombstones = Tombstones(at.tombstones)
    tombstones.add("sample", erased.samples)
    tombstones.add("subject", erased.tombstones)
    tombstones.add("vanished", erased.subjects)
    done = keys.destroy(numbers)
    _log.info("batch %d: %d keys are destroyed", batch.number, len(numbers))
    return {"samples": len(erased.keys), "steps": len(erased.steps), "keys": len(numbers), "epoch": done.epoch}


def _look_up(batch: DeletionBatch) -> Erased:
    at, dataset = catalog(), catalog().dataset()
    index, alive, numbers = dataset.index, ~dataset.erased, dataset.key_numbers
    requests = [r for r in at.open_journal().requests() if r.request_id in set(batch.request_ids)]
    named = {r.request_id: named_rows(r, index) & alive for r in requests}
    rows = np.any([*named.values(), np.zeros(len(index), bool)], axis=0)
    train = (index["split"] == "train").to_numpy(bool)
    _refuse_unforgotten(index.loc[rows & train, "row"].tolist())
    keys, subjects = numbers[rows], index["subject_id"].astype(str)
    steps, secret = _steps(keys), secrets.token_bytes(32)
    return Erased(
        keys=tuple(keys.tolist()),
        steps=steps,
        samples=tuple(index.loc[rows, "sample_id"].astype(str)),
        subjects=tuple(sorted(set(subjects[rows]) - set(subjects[alive & ~rows]))),
        tombstones=tuple(value for r in requests if r.kind == "subject" for value in r.values),
        left=int((train & alive & ~rows).sum()),
        before=_weights_before(batch),
        requests={r.request_id: _request_facts(r, index, named[r.request_id], train) for r in requests},
        marks={kind: [astuple(one) for one in marks(some, secret)] for kind, some in _plaintext(keys, steps).items()},
        marks_key=secret.hex(),
    )


def _request_facts(request: DeletionRequest, index: pd.DataFrame, rows: Mask, train: Mask) -> dict[str, Any]:
    held = set() if request.kind == "class" else set(index[_COLUMN[request.kind]].astype(str))
    salt, known = catalog().open_journal().salt(), [v for v in request.values if request.kind == "class" or v in held]
    return {
        "rows": int((rows & train).sum()),
        "keys": int(rows.sum()),
        "subjects": int(index.loc[rows, "subject_id"].nunique()),
        "ids": [value_hmac(salt, request.kind, value) for value in known],
        "not_held": [value_hmac(salt, request.kind, value) for value in request.values if value not in known],
    }


_COLUMN = {"samples": "sample_id", "random": "sample_id", "subject": "subject_id"}


def _refuse_unforgotten(positions: Sequence[int]) -> None:
    head = head_of_batch()
    left = set(positions) - set(catalog().store().read(head.version).positions())
    if left:
        raise SpecMismatch(
            f"{len(left)} training samples are to be erased, and the published version {head.version[:12]} "
            "still holds their part: no key was destroyed. Run `amnesiac publish --force`"
        )


def _steps(keys: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Keys of the optimiser steps that saw these samples, where whole updates are kept."""
    ledger = _ledger()
    if not len(ledger.step_keys):
        return ()
    positions = np.flatnonzero(np.isin(ledger.key_numbers, keys)).tolist()
    return tuple(ledger.step_keys[ledger.steps_of(positions)].tolist())


def _plaintext(numbers: npt.NDArray[np.int64], steps: Sequence[int]) -> dict[str, list[bytes]]:
    """A sample of what must be found nowhere once the keys are gone, by kind; keys in hex as well."""
    at, dataset = catalog(), catalog().dataset()
    chosen = np.flatnonzero(np.isin(dataset.key_numbers, numbers))[:MARKED]
    train = chosen[chosen < dataset.record.splits["train"]]
    some = np.concatenate([numbers[:MARKED], np.array(steps[:MARKED], np.int64)])
    alive = at.key_store().alive(some)  # a step's key may have gone with somebody else's batch
    keys = [key.tobytes() for key in at.key_store().keys(some[alive])]
    return {
        "image rows": [row.tobytes() for row in dataset.reader.read(chosen)],
        "ledger rows": list(_ledger().plain_rows(train.tolist())),
        "keys": [*keys, *(key.hex().encode() for key in keys)],
    }


def _ledger() -> SealedLedger:
    return open_ledger(catalog().ledger, keys=catalog().key_store())


def _weights_before(batch: DeletionBatch) -> str:
    """SHA-256 of the weights that were published before the batch, or trained."""
    at = catalog()
    before = batch.facts("PUBLISHED").get("predecessor")
    if before in at.store().ids():
        return str(at.store().read(before).files[MODEL])
    withdrawn = read_withdrawn(at.model)
    return withdrawn.file_sha256 if withdrawn else at.trained_file_sha256()
