"""What is audited: a training run, the sets that are forgotten, and what decides the bits of an ensemble's member."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from amnesiac.data import Split
from amnesiac.hashing import hash_json
from amnesiac.ledger.manifest import library_versions
from amnesiac.models import build_model
from amnesiac.settings import CaptureSettings, MethodName, ModelSettings, TrainingSettings
from amnesiac.training import RunSpec

Kind = Literal["left-out", "captured", "retrained"]
FORMAT = 1
"""Raised when a member's content changes meaning, so that older files are not taken for new ones."""


@dataclass(frozen=True)
class Setup:
    """A training run, as it would be done, and the methods that forget from it.

    train, test:  readable samples; audits train on all of `train`
    data_hash:    of everything that training can see
    methods:      each must be among the capture's; the first is the one that is judged
    """

    train: Split
    test: Split
    classes: int
    model: ModelSettings
    training: TrainingSettings
    capture: CaptureSettings
    methods: tuple[MethodName, ...]
    data_hash: str
    seed: int

    def facts(self, kind: Kind) -> dict[str, Any]:
        """What decides the bits of a kind of member beside the member itself, as JSON."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "data_hash": self.data_hash,
            "model": self.model.model_dump(mode="json"),
            "training": self.training.facts(),
            "versions": library_versions(),
        }
        if kind != "captured":
            return found
        return found | {"capture": self.capture.model_dump(mode="json"), "methods": list(self.methods)}

    def spec(self, seed: int) -> RunSpec:
        """The run with another seed."""
        return RunSpec(seed, self.model, self.training, self.data_hash)

    def factory(self, seed: int) -> Callable[[], nn.Module]:
        """The model as that seed initialises it."""
        channels, height, width = (int(k) for k in self.train.inputs.shape[1:])
        return partial(build_model, self.model, (channels, height, width), self.classes, seed)

    def with_labels_of(self, forget: "ForgetSet") -> "Setup":
        """The same with the set's wrong labels, where it has some."""
        if not forget.labels:
            return self
        labels = self.train.labels.clone()
        labels[list(forget.positions)] = torch.tensor(forget.labels)
        return replace(self, train=replace(self.train, labels=labels), data_hash=f"{self.data_hash}-{forget.key}")


@dataclass(frozen=True)
class ForgetSet:
    """Samples to forget: positions in the training split, ascending; the labels to train with, if not their own."""

    name: str
    positions: tuple[int, ...]
    labels: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """12 hex digits of what it holds."""
        return hash_json(asdict(self))[:12]


@dataclass(frozen=True)
class Member:
    """One model (or, captured, one model and what each method makes of it for each set) of an ensemble.

    kind:      left-out   trained without `left_out`; tells memorisation
               captured   trained on all with capture, then forgets each of `sets` (of the same data)
               retrained  trained without the one of `sets`
    ensemble:  "memorisation", "own" or "reference"; the seed is drawn from it and from `number`
    retain:    retained samples on which members are compared, positions
    """

    kind: Kind
    ensemble: str
    number: int
    seed: int
    sets: tuple[ForgetSet, ...] = ()
    left_out: tuple[int, ...] = ()
    retain: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """For people; no sample is named."""
        names = ", ".join(one.name for one in self.sets)
        return f"{self.kind} {self.ensemble} {self.number}{f': {names}' if names else ''}"

    def file_name(self, setup: Setup) -> str:
        """Another setting, seed, set or library version is another member."""
        return f"{self.kind}-{hash_json([setup.facts(self.kind), asdict(self)])[:24]}.safetensors"


def shown(setup: Setup, member: Member, forget: ForgetSet) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and labels on which a member is looked at: forget, retain and test."""
    train = setup.with_labels_of(forget).train
    sets: dict[str, Sequence[int]] = {"forget": forget.positions, "retain": member.retain}
    found = {name: (train.inputs[list(rows)], train.labels[list(rows)]) for name, rows in sets.items()}
    return found | {"test": (setup.test.inputs[:TEST], setup.test.labels[:TEST])}


TEST = 1000
"""Test samples on which members are compared, at most."""
