"""SCANNED → RECEIPTED: a signed receipt a request; then what the requests named goes from the journal."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac import __version__
from amnesiac.publication.version import MODEL
from amnesiac.receipts import Algorithm, Chain, Model, Purged, Receipt, Request, Scan, ensure_signing_key
from amnesiac.requests import DeletionBatch, DeletionRequest, due
from amnesiac.requests.request import timestamp
from tasks.archiving import archived_reports
from tasks.catalog import catalog
from tasks.clearing import purged
from tasks.erasing import Erased, erased_by, keys_destroyed
from tasks.opaque import opaque
from tasks.publishing import reach
from tasks.resting import due_batches
from tasks.scanning import scanned
from tasks.stages import writing

_METRICS = ("forget_accuracy", "retain_accuracy", "test_accuracy", "kl_forget", "kl_test")


@task(name="issue receipts", cache_policy=NO_CACHE, persist_result=False)
@opaque
def issue_receipts(batch: DeletionBatch) -> DeletionBatch:
    """SCANNED → RECEIPTED."""
    return receipted(batch)


def receipted(batch: DeletionBatch) -> DeletionBatch:
    """Sign a receipt for each request that has none, then redact what they named in the journal."""
    after = reach(batch, "RECEIPTED", _sign)
    redact_receipted()
    return after


def finish_due() -> tuple[DeletionBatch, ...]:
    """Carry all published batches whose turn it is to their receipts, outside of a flow and under the writer lock."""
    with writing("recover"):
        done = tuple(receipted(scanned(purged(keys_destroyed(batch)))) for batch in due_batches())
        archived_reports()
        redact_receipted()
    return done


def redact_receipted() -> None:
    """Drop from the journal what receipted requests named, also where a run was killed before it came to that."""
    at = catalog()
    done = [batch for batch in at.batches().history() if not batch.ended and batch.reached("RECEIPTED")]
    named = {r.request_id for r in at.open_journal().requests() if not r.redacted} if done else set()
    if ids := [request_id for batch in done for request_id in batch.request_ids if request_id in named]:
        at.open_journal().redact(ids)
    for batch in done:
        if at.batches().held(batch) is not None:
            at.batches().drop(batch)
    at.open_journal().finish_wiping()


def _sign(batch: DeletionBatch) -> dict[str, Any]:
    at, erased = catalog(), erased_by(batch)
    requests = {request.request_id: request for request in at.open_journal().requests()}
    chain = Chain(at.receipts)
    key = ensure_signing_key(at.signing, chain.public)
    stored = [
        chain.find(name) or chain.append(_receipt(batch, requests[name], erased), key) for name in batch.request_ids
    ]
    return {"receipts": len(stored), "last": stored[-1].path.name if stored else None}


def _receipt(batch: DeletionBatch, request: DeletionRequest, erased: Erased) -> Receipt:
    published, destroyed = batch.facts("PUBLISHED"), batch.facts("KEYS_DESTROYED")
    evaluated, facts = batch.facts("EVALUATED"), erased.requests[request.request_id]
    version = catalog().store().read(published["version"])
    return Receipt(
        request=Request(
            request.request_id, request.received, timestamp(due(request.received)), tuple(facts["ids"]),
            tuple(facts["not_held"]),
        ),
        batch=f"batch-{batch.number}",
        algorithm=Algorithm(f"{published['method']} ({published['published']})", __version__),
        model=Model(erased.before, str(version.files[MODEL])),
        rows_removed=facts["rows"],
        rows_left=erased.left,
        subjects=facts["subjects"],
        keys_destroyed=facts["keys"] + destroyed["steps"],
        key_epoch=destroyed["epoch"],
        purged=tuple(Purged(**one) for one in batch.facts("PURGED")["purged"]),
        scan=_scan(batch),
        verdict=evaluated.get("verdict") or "It wasn't compared with retraining.",
        states={event.state: event.at for event in batch.events},
        metrics={name: evaluated[name] for name in _METRICS if name in evaluated},
    )  # fmt: skip


def _scan(batch: DeletionBatch) -> Scan:
    found = batch.facts("SCANNED")
    counts = {name: found[name] for name in ("files", "bytes", "things", "hits", "gaps")}
    return Scan(places=tuple(found["places"]), kinds=found.get("kinds", {}), **counts)
