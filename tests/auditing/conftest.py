"""A tiny setup whose models are really trained, and its ensembles, once for all tests here."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from amnesiac.auditing import Ensembles, Member, Setup, draw_sets, ensemble_members, keep_member, read_ensembles
from amnesiac.data import Split
from amnesiac.settings import CaptureSettings, CurvatureSettings, ModelSettings, OptimizerSettings, TrainingSettings

MODELS = 5


def split(name, n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, 1, 5, 5, generator=generator)
    inputs[torch.arange(n), 0, labels, labels] += 4.0
    ids = tuple(f"{name}{k}" for k in range(n))
    return Split(name, inputs, labels, ids, ids)


def tiny(**changes):
    training = TrainingSettings(epochs=15, batch_size=16, optimizer=OptimizerSettings(lr=0.1, momentum=0.9))
    capture = CaptureSettings(methods=("settled",), curvature=CurvatureSettings(smallest_sample=16, segments=3))
    given = {
        "train": split("a", 60, 0), "test": split("b", 30, 1), "classes": 3,
        "model": ModelSettings(factory="mlp", options={"hidden": [12]}), "training": training, "capture": capture,
        "methods": ("settled",), "data_hash": "tiny", "seed": 0,
    }  # fmt: skip
    return Setup(**(given | changes))


@dataclass(frozen=True)
class Audited:
    setup: Setup
    folder: Path
    members: list[Member]
    ensembles: dict[str, Ensembles]


@pytest.fixture(scope="session")
def tiny_setup():
    """Makes tiny setups."""
    return tiny


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """Ensembles of the mislabelled set, whose samples only memorising can learn."""
    setup, folder = tiny(), tmp_path_factory.mktemp("members")
    members = ensemble_members(setup, draw_sets(setup, ("mislabelled",), 0.1, None), MODELS)
    for member in members:
        keep_member(folder, setup, member, folder / "scratch")
    return Audited(setup, folder, members, read_ensembles(folder, setup, members))
