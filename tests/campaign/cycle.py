"""A whole deletion in a tiny encrypted project of the core alone: sealed, staged, published, keys destroyed, purged,
scanned, receipted. `STEPS` says what carries a batch into which state; a state that is added to the product goes there.

Every step may be killed and is done again by the next `run`, as the flow does it (no Prefect, no DVC here).
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch

import amnesiac
from amnesiac.durable import sweep
from amnesiac.erasure import Purge, Target, Tombstones, id_needles, pseudonym, scan
from amnesiac.errors import UnknownSample
from amnesiac.hashing import hash_tensors
from amnesiac.keys import LocalKeyStore, sample_name
from amnesiac.ledger import open_ledger
from amnesiac.models import load_weights, save_weights
from amnesiac.progress import silent
from amnesiac.publication import publish, recover
from amnesiac.receipts import Algorithm, Chain, Model, Purged, Receipt, Request, Scan, ensure_signing_key, verify_chain
from amnesiac.requests import RequestDraft, resolve
from amnesiac.requests.chain import point
from amnesiac.settings import (
    CaptureSettings,
    CurvatureSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
)
from amnesiac.training import CapturePlan, RunSpec, train_with_capture
from amnesiac.unlearning import ledgers_for
from tests.publication.tiny import CLASSES, MODEL, Data, N, Tiny, build

notice = [silent]  # called with (stage, done, total) while training
IDS = [f"person-{k:04d}" for k in range(N)]
DUE = "2999-01-01T00:00:00Z"


@dataclass(frozen=True)
class Cycle(Tiny):
    """`root` holds model, ledger, keys, journal, published, unlearned, receipts, signing, cache."""

    last: str = "RECEIPTED"
    seed: int = 4
    unknown: str = "refuse"
    lost: tuple[str, ...] = ()  # ids that the data set has no more: it was prepared from another source since

    @property
    def keys(self):
        return LocalKeyStore(self.root / "keys")

    @property
    def ledger(self):
        weights = load_weights(self.root / MODEL)
        run = self.spec.run_id(self.capture)
        return open_ledger(self.root / "ledger", run_id=run, weights_sha256=hash_tensors(weights), keys=self.keys)

    @property
    def chain(self):
        return Chain(self.root / "receipts")

    @property
    def purge(self):
        return Purge(self.root / "journal" / "purge.json", [self.root])

    @property
    def capture(self):
        return CaptureSettings(methods=(self.method,), curvature=CurvatureSettings(smallest_sample=16))

    @property
    def spec(self):
        optimizer = OptimizerSettings(momentum=0.9)
        return RunSpec(
            self.seed, ModelSettings(), TrainingSettings(epochs=3, batch_size=8, optimizer=optimizer), "data"
        )

    def index(self):
        labels = [k % CLASSES for k in range(N)]
        ids = [f"other-{k:04d}" if name in self.lost else name for k, name in enumerate(IDS)]
        columns = {"row": range(N), "sample_id": ids, "subject_id": ids, "label": labels}
        return pd.DataFrame(columns | {"class_name": [f"c{k}" for k in labels], "split": "train"})

    def file(self, *sample_ids, name=None):
        head = self.head()
        gone = self.store.read(head.version).positions() if head else ()
        return self.journal.file([RequestDraft("samples", sample_ids, name)], self.index(), forgotten=gone)

    def seal(self):
        """Train, or go on from the last checkpoint, and seal; nothing where there is a ledger."""
        scratch = self.root / "scratch"
        if not ((self.root / "ledger").exists() and (self.root / MODEL).exists()):
            ledgers, folder = ledgers_for(self.capture), self.root / "ledger"
            plan = CapturePlan(self.capture, ledgers, IDS, IDS, folder, scratch, self.keys)
            told = notice[0]
            result, manifest = train_with_capture(self.spec, build, data(), plan, resume=True, progress=told)
            save_weights(self.root / MODEL, result.weights, {"run_id": manifest.run_id})
        shutil.rmtree(scratch, ignore_errors=True)

    def run(self):
        """Recover, then carry a batch to its receipt, the unfinished one first; None where nothing is pending."""
        sweep(self.root)
        self.seal()
        recover(self.batches, self.store)
        tidy(self)
        batch = self.batches.current() or self.begin()
        if batch is None:
            return None
        for state, step in STEPS.items():
            if not batch.reached(state):
                batch = step(self, batch)
        tidy(self)
        return batch

    def begin(self):
        new = self.pending()
        return self.batches.open([request.request_id for request in new]) if new else None

    def pointer(self, batch):
        """To the requests up to the batch's last: what is filed while it is at work waits for the next one."""
        requests = self.journal.requests()
        last = max(k for k, request in enumerate(requests) if request.request_id in batch.request_ids)
        return point(self.journal.salt(), requests[: last + 1])

    def rows(self, batch):
        """Training positions that a batch's requests name (until they are redacted)."""
        wanted = [request for request in self.journal.requests() if request.request_id in batch.request_ids]
        return list(resolve(wanted, self.index(), unknown=self.unknown).rows)

    def new_rows(self):
        """Those that HEAD has forgotten and its predecessor (not purged yet) had not."""
        head = self.head()
        before = self.store.read(head.predecessor).positions() if head.predecessor else ()
        return sorted(set(self.store.read(head.version).positions()) - set(before))

    def found(self):
        """What a reader sees: HEAD and the weights' bytes."""
        head, weights = self.head(), self.weights()
        digest = weights and hashlib.sha256(b"".join(weights[name] for name in sorted(weights))).hexdigest()
        return {"version": head and head.version, "weights": digest, "requests": list(head.requests) if head else []}

    def alive(self):
        """Which samples' keys there are."""
        numbers = self.keys.find([sample_name(name) for name in IDS])
        return [bool(number >= 0) for number in numbers]

    def everything(self):
        """All that two ways to the same end must agree on; times and numbers of batches may differ."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        ledger = {str(p.relative_to(self.root)): digest(p) for p in files if (self.root / "ledger") in p.parents}
        other = {str(path.relative_to(self.root)) for path in files} - set(ledger)
        ended = [batch.state for batch in self.batches.history() if not batch.ended]
        return self.found() | {
            "ledger": ledger, "alive": self.alive(), "batches": ended, "receipts": self.receipts(),
            "chain": list(verify_chain(self.chain.folder).problems),
            "redacted": [request.redacted for request in self.journal.requests()],
            "files": sorted(name for name in other if not name.endswith(("-wal", "-shm"))),
        }  # fmt: skip

    def receipts(self):
        """Without times and the batch's number."""
        facts = [asdict(stored.signed.receipt) for stored in self.chain.receipts()]
        return [{key: value for key, value in fact.items() if key not in ("states", "batch")} for fact in facts]


def tidy(project):
    """What follows a state that is noted: the purge's list is dropped, values of receipted requests are redacted."""
    batch = project.batches.current()
    if project.purge.unfinished and (batch is None or batch.reached("PURGED")):
        project.purge.run()
        project.purge.close()
    states = project.batches.request_states()
    if done := [name for name, state in states.items() if state == "RECEIPTED"]:
        project.journal.redact(done)


def plan(project, batch):
    wanted = [request for request in project.journal.requests() if request.request_id in batch.request_ids]
    try:
        resolve(wanted, project.index(), unknown=project.unknown)
    except UnknownSample:
        project.batches.abandon(batch, "unknown ids")
        raise
    return project.batches.advance(batch, "PLANNED", {"requests": len(batch.request_ids)})


def stage(project, batch):
    project.stage(project.pointer(batch))
    return project.batches.advance(batch, "STAGED")


def evaluate(project, batch):
    return project.batches.advance(batch, "EVALUATED", {"evaluated": False})


def make_public(project, batch):
    publish(project.batches, batch, project.store, project.staged)
    return next(found for found in project.batches.history() if found.number == batch.number)


def destroy(project, batch):
    """Numbers come from the ledger's table: names don't give them back once keys are gone."""
    ledger, rows = project.ledger, project.new_rows()
    steps = ledger.step_keys[ledger.steps_of(rows)] if len(ledger.step_keys) else ledger.step_keys
    numbers = np.concatenate([ledger.table["key"].to_numpy(np.int64)[rows], steps])
    done = project.keys.destroy(numbers)
    facts = {"keys": done.destroyed + done.already, "epoch": done.epoch, "rows": len(rows)}
    return project.batches.advance(batch, "KEYS_DESTROYED", facts)


def targets(project):
    """What a purge removes: superseded versions, the candidate, what the cache (DVC's, here a folder) keeps."""
    head = project.head().version
    versions = [path for path in sorted(project.store.versions.iterdir()) if path.name != head]
    found = [Target("superseded versions", path) for path in versions]
    found.append(Target("candidate", project.staged))
    cache = project.root / "cache"
    return found + [Target("cache", path) for path in (sorted(cache.iterdir()) if cache.is_dir() else ())]


def purge(project, batch):
    project.purge.add(targets(project), overwrite=True)
    places = [asdict(place) for place in project.purge.run()]
    batch = project.batches.advance(batch, "PURGED", {"places": places})
    project.purge.close()
    return batch


def places(project):
    """Everything but the journal and its purge list, which know the ids until the receipt is written."""
    return sorted(path for path in project.root.iterdir() if path.name != "journal")


def look(project, batch):
    rows = project.rows(batch)
    gone = [IDS[row] for row in rows]
    report = scan(id_needles(gone, [name for name in IDS if name not in gone]), places(project))
    if not report.clean:
        raise AssertionError(f"residues: {report.hits} {report.gaps}")
    facts = {"files": report.files, "bytes": report.bytes, "things": report.things, "hits": len(report.hits)}
    return project.batches.advance(batch, "SCANNED", facts)


def receipt(project, batch):
    key, salt = (
        ensure_signing_key(project.root / "signing", project.chain.public),
        bytes.fromhex(project.journal.salt()),
    )
    for request in project.journal.requests():
        if request.request_id in batch.request_ids:
            Tombstones(project.root / "tombstones").add("sample", request.values)
            project.chain.append(facts(project, batch, request, salt), key)
    return project.batches.advance(batch, "RECEIPTED", {"receipts": len(batch.request_ids)})


def facts(project, batch, request, salt):
    erased, purged, seen = (batch.facts(state) for state in ("KEYS_DESTROYED", "PURGED", "SCANNED"))
    version = project.store.read(project.head().version)
    counted = [Purged(p["place"], "files", p["files"], p["bytes"]) for p in purged["places"]]
    held = [value for value in request.values if value in IDS and value not in project.lost]
    return Receipt(
        request=Request(
            request.request_id, request.received, DUE, tuple(pseudonym(salt, "sample", value) for value in held),
            tuple(pseudonym(salt, "sample", value) for value in request.values if value not in held),
        ),
        batch=f"batch-{batch.number}",
        algorithm=Algorithm(project.method, amnesiac.__version__),
        model=Model(version.facts["base_sha256"], version.facts["weights_sha256"]),
        rows_removed=erased["rows"], rows_left=N - version.facts["samples"], subjects=len(held),
        keys_destroyed=erased["keys"], key_epoch=erased["epoch"], purged=tuple(counted),
        scan=Scan(("project",), seen["files"], seen["bytes"], seen["things"], seen["hits"]),
        verdict="not evaluated", states={"SCANNED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
    )  # fmt: skip


STEPS = {
    "PLANNED": plan, "STAGED": stage, "EVALUATED": evaluate, "PUBLISHED": make_public, "KEYS_DESTROYED": destroy,
    "PURGED": purge, "SCANNED": look, "RECEIPTED": receipt,
}  # fmt: skip


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def data():
    labels = torch.arange(N) % CLASSES
    noise = torch.randn(N, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    return Data(noise + labels[:, None, None, None], labels)


def create(root, method="settled", seed=4):
    """A project that is trained and sealed, with a cache that holds its subjects' ids as DVC's would."""
    LocalKeyStore(root / "keys", create=True).ensure([sample_name(name) for name in IDS])
    project = Cycle(root, method, seed=seed)
    project.seal()
    (root / "cache").mkdir()
    (root / "cache" / "object").write_text("\n".join(IDS))
    ensure_signing_key(root / "signing", project.chain.public)
    return project
