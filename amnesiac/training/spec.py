"""What decides the bits of a training run, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from amnesiac.hashing import hash_json
from amnesiac.keys import KeyStore
from amnesiac.ledger.settled_parts import Spread
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, ModelSettings, TrainingSettings

StateDict = dict[str, torch.Tensor]
ModelFactory = Callable[[], nn.Module]


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the trained weights (given library versions and machine kind)."""

    seed: int
    model: ModelSettings
    training: TrainingSettings
    data_hash: str

    def facts(self) -> dict[str, object]:
        """As JSON, for manifests."""
        return {
            "seed": self.seed,
            "model": self.model.model_dump(mode="json"),
            "training": self.training.facts(),
            "data_hash": self.data_hash,
        }

    def run_id(self, capture: CaptureSettings | None = None) -> str:
        """16 hex digits: the same specification is the same run."""
        extra = capture.model_dump(mode="json") if capture else None
        return hash_json([self.facts(), extra])[:16]


@dataclass(frozen=True)
class EpochRecord:
    """One line of a training history; loss and accuracy are means over the mini-batches as they were trained on."""

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """weights: state dict at the end;  initial: before the first step
    seconds: of the training loop, and of starting its processes where there are several
    """

    weights: StateDict
    initial: StateDict
    history: tuple[EpochRecord, ...]
    seconds: float


@dataclass(frozen=True)
class CapturePlan:
    """What to capture and where it goes.

    ledgers:      rows to seal (amnesiac.unlearning says which a method needs)
    destination:  folder of the sealed ledger
    scratch:      folder of spool and checkpoint, outside `destination`; removed by `discard_scratch`
    keys:         encrypts the ledger; None: it lies in clear
    only:         positions of the samples whose rows are sealed, None for all; all are captured, so that curvature and
                  kappa are those of the whole run (an audit forgets few samples of a run that nobody keeps)
    spread:       settles the rows in other processes; None: in the one that seals
    """

    settings: CaptureSettings
    ledgers: tuple[LedgerSpec, ...]
    sample_ids: Sequence[str]
    subject_ids: Sequence[str]
    destination: Path
    scratch: Path
    keys: KeyStore | None = None
    only: Sequence[int] | None = None
    spread: Spread | None = None
