"""What a report says beside the metrics, from settings, the staged version, the journal and the chain of receipts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amnesiac.errors import DamagedStore
from amnesiac.evaluation import (
    Asked,
    AuditFacts,
    BatchFacts,
    Drift,
    ReportFacts,
    audit_of,
)
from amnesiac.publication import read_staged
from amnesiac.publication.version import MODEL
from amnesiac.receipts import Chain
from amnesiac.requests import DeletionBatch, DeletionRequest, due
from amnesiac.requests.request import timestamp
from tasks.catalog import Catalog, catalog

ROLES = {MODEL: "unlearned", "repaired.safetensors": "repaired", "retrained.safetensors": "retrained"}
_ERASED = {"trained model", "superseded versions", "references", "scratch", "results of Prefect"}


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


def staged_facts(seconds: Mapping[str, float]) -> ReportFacts:
    """Of what is staged; no batch yet."""
    at, params, version = catalog(), catalog().params(), read_version()
    optimizer = params.training.optimizer
    return ReportFacts(
        requests=len(version["requests"]),
        subjects=version["subjects"],
        samples=version["samples"],
        method=version["method"],
        data=params.data.source,
        model=params.model.factory,
        seconds=dict(seconds),
        bytes=_bytes(at, version),
        settings={
            "optimiser": f"{optimizer.name}, learning rate {optimizer.lr:g}, momentum {optimizer.momentum:g}",
            "epochs": params.training.epochs,
            "mini-batch": params.training.batch_size,
            "seed": params.seed,
            "other seeds retrained": params.evaluation.other_seeds,
            "published": published_sentence(version) or version["published"],
            "ledger rows read": version["rows"],
            "bytes a row": version["bytes_per_row"],
        },
        version=version["weights_sha256"][:12],
        published=ROLES[version["published"]],
        not_held=version.get("not_held", {}),
        drift=_drift(version),
    )


def batch_facts(batch: DeletionBatch) -> BatchFacts:
    """The batch as the journal has it, with the receipts that its requests have."""
    at = catalog()
    wanted, chain = set(batch.request_ids), Chain(at.receipts)
    asked = [request for request in at.open_journal().requests() if request.request_id in wanted]
    scan = batch.facts("SCANNED")
    return BatchFacts(
        number=batch.number,
        asked=tuple(_asked(request, chain) for request in asked),
        states={event.state: event.at for event in batch.events},
        erased=_erased(batch),
        scan={name: int(scan[name]) for name in ("files", "bytes", "things", "hits", "gaps")} if scan else {},
    )


def audit_facts() -> AuditFacts | None:
    """The audit of this training run, if one was made; raises DamagedStore."""
    at = catalog()
    path = at.audit / "audit.json"
    if not path.exists():
        return None
    try:
        found = audit_of(json.loads(path.read_text()))
    except ValueError as error:
        raise DamagedStore(f"{path} is no JSON ({error}): run `amnesiac audit` again") from error
    return found if found.run == at.run_spec().run_id(at.params().capture) else None


def _asked(request: DeletionRequest, chain: Chain) -> Asked:
    stored, deadline = chain.find(request.request_id), timestamp(due(request.received))
    number = stored.signed.sequence if stored else None
    return Asked(request.request_id, request.kind, len(request.values), request.received, deadline, number)


def _erased(batch: DeletionBatch) -> dict[str, int]:
    """Counts by what was erased; of DVC's objects those of all places together."""
    found: dict[str, int] = {}
    if destroyed := batch.facts("KEYS_DESTROYED"):
        found["keys"] = int(destroyed["keys"])
    for one in batch.facts("PURGED").get("purged", ()):
        name = f"{one['what']}, files" if one["what"] in _ERASED else "objects in DVC's caches and remotes"
        found[name] = found.get(name, 0) + int(one["count"])
        found["bytes"] = found.get("bytes", 0) + int(one["bytes"] or 0)
    return found


def _drift(version: Mapping[str, Any]) -> Drift | None:
    found = version["confidence"]
    if found is None:
        return None
    budget = catalog().params().unlearning.confidence.drift_budget
    return Drift(found["drift"], budget, found["predicted_kl"], found["share"], found["verdict"])


def _bytes(at: Catalog, version: Mapping[str, Any]) -> dict[str, int]:
    return {
        "ledger, all samples": _folder(at.ledger),
        "ledger rows read for this version": int(version["rows"]) * int(version["bytes_per_row"]),
        "prepared data": _folder(at.prepared),
        "weights of a model": (at.unlearned / MODEL).stat().st_size,
    }


def _folder(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
