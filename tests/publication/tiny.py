"""A tiny project of the core alone: trained with capture, and carried from requests to a published version."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psycopg
import torch
from torch import nn

from amnesiac.durable import sweep
from amnesiac.ledger import open_ledger
from amnesiac.models import load_weights, save_weights
from amnesiac.publication import (
    Subtraction,
    VersionStore,
    continues,
    groups_of,
    origin,
    publish,
    read_head,
    recover,
    rounded,
    state_of,
    subtract,
    write_candidate,
)
from amnesiac.requests import Batches, Journal, RequestDraft, copy_journal, pending, resolve
from amnesiac.settings import (
    CaptureSettings,
    CurvatureSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
    UnlearningSettings,
)
from amnesiac.training import CapturePlan, RunSpec, train_with_capture
from amnesiac.unlearning import ledgers_for

N, CLASSES = 48, 3
MODEL, RETRAINED = "model.safetensors", "retrained.safetensors"


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Tiny:
    """A folder with model and ledger; `method`: what deletes."""

    root: Path
    method: str = "settled"
    last: str = "PUBLISHED"
    unknown: str = "refuse"

    @property
    def journal(self):
        return Journal(self.root / "journal", address_of(self.root))

    @property
    def batches(self):
        return Batches(self.journal, self.last)

    @property
    def store(self):
        return VersionStore(self.root / "published")

    @property
    def staged(self):
        return self.root / "unlearned"

    @property
    def ledger(self):
        return open_ledger(self.root / "ledger")

    @property
    def settings(self):
        return UnlearningSettings(method=self.method)

    def copy(self, root):
        shutil.copytree(self.root, root)
        copy = type(self)(root, self.method, self.last)
        if address_of(root):
            copy_on_server(self.journal, copy.journal)
        return copy

    def index(self):
        return index()

    def file(self, *sample_ids, name=None):
        return self.journal.file([RequestDraft("samples", sample_ids, name)], self.index())

    def head(self):
        return read_head(self.store)

    def pending(self):
        head = self.head()
        return pending(self.journal.requests(), head.requests if head else ())

    def stage(self, pointer=None, published=MODEL):
        """From HEAD where that goes, else from the trained model: as tasks/deletion.py does."""
        pointer, ledger = pointer or self.journal.pointer(), self.ledger
        requests, weights = self.journal.read_prefix(pointer), load_weights(self.root / MODEL)
        wanted = origin(ledger, self.settings, pointer, [request.request_id for request in requests])
        head = self.head()
        version = self.store.read(head.version) if head else None
        if version and continues(version, wanted):
            start, ends = state_of(version), (len(requests),)
        else:
            facts = {key: wanted.facts()[key] for key in ("run_id", "method", "pointer")} | {"scale": "lr"}
            start, ends = Subtraction(), groups_of(self.batches, facts, len(requests))
        groups = list(zip((start.requests, *ends), ends, strict=False))
        unknown = self.unknown
        forget = [resolve(requests[low:high], self.index(), unknown=unknown) for low, high in groups if low < high]
        result = subtract(self.settings, ledger, weights, start, forget)
        files = {MODEL: rounded(result.master, weights)}
        if published != MODEL:
            files[published] = {name: value + 1 for name, value in files[MODEL].items()}
        write_candidate(self.staged, result, files, wanted.facts() | {"published": published, "confidence": None})
        return result

    def run(self, published=MODEL):
        """Recover, then one whole batch; None where nothing is pending."""
        sweep(self.root)
        recover(self.batches, self.store)
        if not (new := self.pending()):
            return None
        batch = self.batches.open([request.request_id for request in new])
        batch = self.batches.advance(batch, "PLANNED", {"requests": len(new)})
        self.stage(published=published)
        batch = self.batches.advance(batch, "STAGED")
        batch = self.batches.advance(batch, "EVALUATED", {"evaluated": False})
        return publish(self.batches, batch, self.store, self.staged)

    def weights(self):
        """The published weights' bytes."""
        head = self.head()
        return None if head is None else bits(self.store.read(head.version).weights())


def address_of(root):
    """The journal's schema on the server that the tests have named; None where it is a file in the project."""
    server = os.environ.get("AMNESIAC_TEST_SERVER")
    return f"{server}&schema={schema_of(root)}" if server else None


def schema_of(root):
    return f"p_{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"


def copy_on_server(journal, copy):
    """A schema for the copy, in the place of one that an earlier copy at the same path has left."""
    with psycopg.connect(os.environ["AMNESIAC_TEST_SERVER"], autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema_of(copy.path.parents[1])} CASCADE")
    with journal.database.reading() as found:
        if found is None:
            return
    copy_journal(journal.database, copy.database)


def bits(tensors):
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


def index():
    """A sample s0 to s47 each of its own subject; labels 0, 1, 2 in turn."""
    labels = [k % CLASSES for k in range(N)]
    ids = [f"s{k}" for k in range(N)]
    columns = {"row": range(N), "sample_id": ids, "subject_id": ids, "label": labels}
    return pd.DataFrame(columns | {"class_name": [f"c{k}" for k in labels], "split": "train"})


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, CLASSES))


def train(folder, method="settled", seed=4):
    """A trained model and its sealed ledger in `folder`."""
    labels = torch.arange(N) % CLASSES
    noise = torch.randn(N, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    capture = CaptureSettings(methods=(method,), curvature=CurvatureSettings(smallest_sample=16))
    training = TrainingSettings(epochs=3, batch_size=8, optimizer=OptimizerSettings(momentum=0.9))
    ids = [f"s{i}" for i in range(N)]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")
    spec = RunSpec(seed, ModelSettings(), training, "data")
    result, manifest = train_with_capture(spec, build, Data(noise + labels[:, None, None, None], labels), plan)
    save_weights(folder / MODEL, result.weights, {"run_id": manifest.run_id})
    shutil.rmtree(folder / "scratch")
    return Tiny(folder, method)
