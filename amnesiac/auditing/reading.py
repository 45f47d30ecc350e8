"""The members' files as ensembles: for each forget set, logits of all models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from amnesiac.auditing.ensemble import read_member
from amnesiac.auditing.members import Content
from amnesiac.auditing.setup import ForgetSet, Member, Setup, shown
from amnesiac.auditing.strata import memorisation
from amnesiac.evaluation.divergence import margin

HELD_OUT, REFERENCE = "retrained", "reference"
"""Retrained models with the seeds of the captured ones, and those of other seeds, with which all are compared."""


@dataclass(frozen=True)
class Ensembles:
    """Everything about one forget set.

    labels:   of forget, retain and test samples `[n]`, as they were trained on
    logits:   by model (original, each method, retrained, reference) and samples: float32 `[models, n, classes]`
    relearn:  by model: loss after each step `[models, steps]`
    """

    forget: ForgetSet
    labels: dict[str, Tensor]
    logits: dict[str, dict[str, Tensor]]
    relearn: dict[str, Tensor]

    def margins(self, model: str, where: str = "forget") -> Tensor:
        """Margins float64 `[models, n]`."""
        return torch.stack([margin(one, self.labels[where]) for one in self.logits[model][where]])


def read_ensembles(folder: Path, setup: Setup, members: Sequence[Member]) -> dict[str, Ensembles]:
    """By the forget set's name, in the order of the members; raises DamagedStore naming a bad or missing file."""
    content = {member: read_member(folder, setup, member) for member in members}
    sets = {one.name: one for member in members for one in member.sets}
    return {name: _of(setup, forget, content) for name, forget in sets.items()}


def read_memorisation(folder: Path, setup: Setup, members: Sequence[Member]) -> Tensor:
    """Scores float64 `[n]` of the training samples from left-out members; raises DamagedStore."""
    content = [read_member(folder, setup, member) for member in members]
    return memorisation(*(torch.stack([one[name] for one in content]) for name in ("probability", "left_out")))


def _of(setup: Setup, forget: ForgetSet, content: dict[Member, Content]) -> Ensembles:
    own = {member: found for member, found in content.items() if forget in member.sets}
    samples = shown(setup, next(iter(own)), forget)
    logits: dict[str, dict[str, Tensor]] = {}
    relearn: dict[str, Tensor] = {}
    for model, (kind, ensemble, name) in _sources(setup).items():
        files = [found for member, found in own.items() if (member.kind, member.ensemble) == (kind, ensemble)]
        stacked = {w: torch.stack([f[f"{name}/{forget.name}/{w}"] for f in files]) for w in (*samples, "relearn")}
        relearn[model] = stacked.pop("relearn")
        logits[model] = stacked
    return Ensembles(forget, {where: labels for where, (_, labels) in samples.items()}, logits, relearn)


def _sources(setup: Setup) -> dict[str, tuple[str, str, str]]:
    """Kind and ensemble of the members in which a model is found, and its name there."""
    captured = {name: ("captured", "own", name) for name in ("original", *setup.methods)}
    retrained = {HELD_OUT: "own", REFERENCE: "reference"}
    return captured | {name: ("retrained", ensemble, "retrained") for name, ensemble in retrained.items()}
