"""What decides the bits of a training run, and what it returns."""

from dataclasses import dataclass

import torch

from amnesiac.hashing import hash_json
from amnesiac.settings import CaptureSettings, ModelSettings, TrainingSettings

StateDict = dict[str, torch.Tensor]


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
            "training": self.training.model_dump(mode="json"),
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
    """weights: state dict at the end;  initial: before the first step;  seconds: of the training loop."""

    weights: StateDict
    initial: StateDict
    history: tuple[EpochRecord, ...]
    seconds: float
