"""The one list of names and where they lie. `dvc.yaml` names the same paths; a test compares the two."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amnesiac.errors import SettingsError, StoreError
from amnesiac.hashing import hash_file
from amnesiac.keys import LocalKeyStore
from amnesiac.publication import Head, VersionStore, read_head, read_withdrawn
from amnesiac.publication.version import MODEL
from amnesiac.requests import Batches, Journal, State
from amnesiac.settings import Params, load_params
from amnesiac.storage import Storage, open_storage

if TYPE_CHECKING:  # what takes torch is imported by who asks for it: `amnesiac status` doesn't
    from amnesiac.data import PreparedDataset
    from amnesiac.ledger import SealedLedger
    from amnesiac.models import StateDict
    from amnesiac.training import RunSpec

# The state in which a deletion batch is finished: the last one that flows/unlearn_batch.py carries it to
LAST_STATE: State = "RECEIPTED"
STAGES = ("prepare", "train", "unlearn", "evaluate")
WRITES = {
    "prepare": ("prepared",),
    "train": ("model", "ledger"),
    "unlearn": ("unlearned",),
    "evaluate": ("retrained", "evaluation", "metrics"),
}
READS = {
    "prepare": (),
    "train": ("prepared",),
    "unlearn": ("prepared", "model", "ledger", "requests"),
    "evaluate": ("prepared", "model", "unlearned"),
}
# Sections of params.yaml that DVC compares; it refuses to record a stage of which one is missing
PARAMS = {
    "prepare": ("seed", "data"),
    "train": ("seed", "model", "training", "capture"),
    "unlearn": ("seed", "model", "training", "unlearning"),
    "evaluate": ("seed", "model", "training", "evaluation"),
}


@dataclass(frozen=True)
class Catalog:
    """Paths of a project, from its root folder."""

    root: Path

    def _data(self, *parts: str) -> Path:
        return self.root.joinpath("pipeline_data", *parts)

    @property
    def params_file(self) -> Path:
        """Every number of the pipeline."""
        return self.root / "params.yaml"

    @property
    def prepared(self) -> Path:
        """Prepared data: images, index, splits."""
        return self._data("prepared")

    @property
    def model(self) -> Path:
        """Folder of the original model."""
        return self._data("model")

    @property
    def ledger(self) -> Path:
        """The sealed delta store."""
        return self._data("ledger")

    @property
    def journal(self) -> Path:
        """Deletion requests; holds ids, so neither git nor DVC sees it."""
        return self._data("journal")

    @property
    def keys(self) -> Path:
        """The key store: AMNESIAC_KEYS, else in `pipeline_data`. Neither git nor DVC sees it; back it up apart."""
        elsewhere = os.environ.get("AMNESIAC_KEYS")
        return Path(elsewhere).absolute() if elsewhere else self._data("keys")

    @property
    def tombstones(self) -> Path:
        """Folder of the tombstones: keyed hashes of erased ids, beside the journal."""
        return self._data("journal")

    @property
    def receipts(self) -> Path:
        """The chain of signed receipts, and the public keys that verify them."""
        return self._data("receipts")

    @property
    def signing(self) -> Path:
        """The private key that signs receipts, apart from them: a folder of receipts may be given away."""
        return self._data("signing")

    @property
    def requests(self) -> Path:
        """The pointer into the journal: which requests the next version covers. In git."""
        return self._data("requests.json")

    @property
    def published(self) -> Path:
        """HEAD and the published versions. No checkout may take them back, so DVC doesn't see them."""
        return self._data("published")

    @property
    def unlearned(self) -> Path:
        """Folder of the staged candidate: the unlearned model as it would be published."""
        return self._data("unlearned")

    @property
    def retrained(self) -> Path:
        """Reference models, by content."""
        return self._data("retrained")

    @property
    def evaluation(self) -> Path:
        """Report, figures and tables."""
        return self._data("evaluation")

    @property
    def reports(self) -> Path:
        """A folder a published batch with its report; no id of a person, no picture. Kept, as receipts are."""
        return self._data("reports")

    @property
    def metrics(self) -> Path:
        """What `dvc metrics show` reads."""
        return self._data("metrics.json")

    @property
    def timings(self) -> Path:
        """Seconds of each step; no DVC output, since they differ from run to run."""
        return self._data("timings")

    @property
    def ensembles(self) -> Path:
        """Members of audits, a file each: logits on samples, so a purge removes them."""
        return self._data("ensembles")

    @property
    def audit(self) -> Path:
        """The last audit: counts and aggregates, figures and tables. Its own, apart from the stages."""
        return self._data("audit")

    @property
    def scratch(self) -> Path:
        """Spool and checkpoints of an unfinished training run."""
        return self._data("scratch")

    def params(self) -> Params:
        """The settings; raises SettingsError, also for a section that DVC compares and that isn't written down."""
        params = load_params(self.params_file)
        missing = {name for names in PARAMS.values() for name in names} - params.model_fields_set
        if missing:
            raise SettingsError(
                f"{self.params_file} lacks {', '.join(sorted(missing))}, which dvc.yaml compares: write "
                f"`{min(missing)}: {'0' if min(missing) == 'seed' else '{}'}` for the defaults"
            )
        return params

    def check_inputs(self, stage: str) -> None:
        """Raise StoreError naming the stage that has to run before this one."""
        for producer, names in WRITES.items():
            for path in (getattr(self, name) for name in names if name in READS[stage]):
                if not path.exists():
                    raise StoreError(
                        f"{path} doesn't exist: run `amnesiac {producer}` before `amnesiac {stage}`, or all of it by "
                        "`amnesiac cycle`"
                    )

    def dataset(self) -> "PreparedDataset":
        """The prepared data; raises StoreError."""
        from amnesiac.data import open_dataset

        return open_dataset(self.prepared, self.key_store())

    def key_store(self, *, create: bool = False) -> LocalKeyStore:
        """What everything of a subject is encrypted with; opened, and made if `create`, when it is first needed."""
        return LocalKeyStore(self.keys, create=create)

    def open_journal(self) -> Journal:
        """The journal of deletion requests: on the server that AMNESIAC_JOURNAL names, else a file in `journal`."""
        return Journal(self.journal, os.environ.get("AMNESIAC_JOURNAL"))

    def batches(self) -> Batches:
        """The journal's deletion batches."""
        return Batches(self.open_journal(), LAST_STATE)

    def store(self) -> VersionStore:
        """The published versions."""
        return VersionStore(self.published)

    def head(self) -> Head | None:
        """What is published; raises DamagedStore and SpecMismatch."""
        return read_head(self.store())

    def storage(self) -> Storage | None:
        """What lies in an object store, by `storage.url`; None where all of it lies here."""
        url = self.params().storage.url
        return open_storage(url) if url else None

    def run_spec(self) -> "RunSpec":
        """What decides the original run."""
        from amnesiac.training import RunSpec

        params = self.params()
        return RunSpec(params.seed, params.model, params.training, self.dataset().content_hash)

    def trained(self) -> "StateDict | None":
        """The trained model's weights; None where they are withdrawn. Raises DamagedStore."""
        from amnesiac.models import load_weights

        return None if read_withdrawn(self.model) else load_weights(self.model / MODEL)

    def trained_file_sha256(self) -> str:
        """SHA-256 of the trained model's file; raises StoreError."""
        path = self.model / MODEL
        if not path.exists():
            raise StoreError(f"{path} doesn't exist: run `dvc checkout`")
        return hash_file(path)

    def open_ledger(self, weights_sha256: str) -> "SealedLedger":
        """The sealed ledger, checked against the settings and the trained weights' content hash."""
        from amnesiac.ledger import open_ledger

        run_id = self.run_spec().run_id(self.params().capture)
        return open_ledger(self.ledger, run_id=run_id, weights_sha256=weights_sha256, keys=self.key_store())


def catalog() -> Catalog:
    """The catalog of the project: AMNESIAC_PROJECT, else the current folder."""
    return Catalog(Path(os.environ.get("AMNESIAC_PROJECT", ".")).resolve())


def data_root() -> Path | None:
    """Where published data sets lie: AMNESIAC_DATA_ROOT, None if unset."""
    root = os.environ.get("AMNESIAC_DATA_ROOT")
    return Path(root).resolve() if root else None
