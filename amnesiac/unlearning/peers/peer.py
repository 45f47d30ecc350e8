"""The one interface of the methods that people would pick instead: a function of a start and of one strength.

A peer isn't a `Method`: it doesn't work from the ledger, so the pipeline can't publish what it makes. What it may use
beside the trained weights is stated (`uses`), because that decides where it can be used at all: retained data must
still exist, checkpoints and curvature must have been kept.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from amnesiac.errors import InputError
from amnesiac.training.loop import TrainingData
from amnesiac.training.spec import RunSpec
from amnesiac.unlearning.peers.curvature import FinalCurvature

Weights = dict[str, Tensor]
Use = Literal["forget data", "retained data", "importances", "curvature", "checkpoints", "the whole run"]


@dataclass(frozen=True)
class Start:
    """What a peer starts from.

    original, initial: state dicts after and before training;  data: the training split, forgotten samples included
    forget:      their positions in it
    seed:        of the peer's own draws: order of mini-batches, random labels
    checkpoints: state dicts after so many epochs of the run, kept while it trained
    curvature:   at the original weights;  importances: diagonal Fisher of `data`, by parameter name (`fisher.py`);
                 both may be kept at the end of training, when all data is there
    """

    spec: RunSpec
    factory: Callable[[], nn.Module]
    original: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    data: TrainingData
    forget: Sequence[int]
    seed: int = 0
    checkpoints: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    curvature: FinalCurvature | None = None
    importances: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Peer:
    """A method.

    summary:   what it does, in a few words;  paper: authors, year, where to find it
    uses:      what it reads beside the original weights
    meaning:   of the strength, the one hyperparameter that is searched;  strengths: what is tried, () for nothing
    weights:   (start, strength) -> state dict; `start.forget` isn't empty
    """

    name: str
    summary: str
    paper: str
    uses: tuple[Use, ...]
    meaning: str
    strengths: tuple[float, ...]
    weights: Callable[[Start, float], Weights]

    @property
    def uses_retain_data(self) -> bool:
        """Whether samples that stay are read when something is forgotten."""
        return "retained data" in self.uses or "the whole run" in self.uses

    def run(self, start: Start, strength: float) -> Weights:
        """Weights without `start.forget`; the original's bits where that is empty.

        Raises InputError for a strength that isn't a positive number, for positions outside of the split or named
        twice, and where the start lacks what the method uses.
        """
        if not (math.isfinite(strength) and strength > 0.0):
            raise InputError(f"{self.name}: strength {strength} isn't a positive number: {self.meaning}")
        _check_forget(start)
        self._check_uses(start)
        if not len(start.forget):
            return {name: value.clone() for name, value in start.original.items()}
        return self.weights(start, strength)

    def _check_uses(self, start: Start) -> None:
        kept = {"checkpoints": start.checkpoints, "curvature": start.curvature, "importances": start.importances}
        missing = [use for use in self.uses if use in kept and not kept[use]]
        if missing:
            raise InputError(
                f"{self.name} needs {' and '.join(missing)}, and the start has none: keep them in training"
            )


def _check_forget(start: Start) -> None:
    n, forget = len(start.data.labels), list(start.forget)
    wrong = [row for row in forget if not 0 <= row < n]
    if wrong or len(set(forget)) < len(forget):
        raise InputError(
            f"the forget set names position {wrong[0]}, and the split has {n} samples: pass positions of the split"
            if wrong
            else f"the forget set of {len(forget)} positions names one twice: pass each once"
        )
