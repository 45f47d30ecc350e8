"""What several processes train in the tests: functions of a module, as processes that are started must be given."""

import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from amnesiac.errors import DataError
from amnesiac.recording import record
from amnesiac.settings import AugmentSettings, CaptureSettings, ModelSettings, OptimizerSettings, TrainingSettings
from amnesiac.training import CapturePlan, RunSpec, train_with_capture
from amnesiac.training.processes import Samples
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("settled", "per-sample-delta", "per-sample-subset", "amnesiac-batch")
OPTIMIZERS = {
    "momentum": OptimizerSettings(lr=0.05, momentum=0.9),
    "adam": OptimizerSettings(name="adam", lr=0.01),
}
N, EPOCHS = 22, 3


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    return Samples(torch.randn(N, 1, 6, 6, generator=generator) + labels[:, None, None, None], labels)


def factory(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*first, nn.Linear(48, 3), *layers)


class Happening(nn.Module):
    """Does something in one process, at one of its forward passes, unless `mark` says that it was done."""

    def __init__(self, what, rank, at, mark):
        super().__init__()
        self.what, self.rank, self.at, self.mark, self.seen = what, rank, at, Path(mark), 0

    def forward(self, x):
        self.seen += self.training
        mine = dist.is_initialized() and dist.get_rank() == self.rank
        if mine and self.seen == self.at and not self.mark.exists():
            self.mark.touch()
            self.what()
        return x


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def failed():
    raise DataError("row 7 of this process's samples is broken")


def happening(what, rank, at, mark):
    return factory(Happening(what, rank, at, mark))


class Counting(nn.Module):
    """A layer that keeps something of what it sees, which no other process sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean.add_(x.detach().mean())
        return x


def counting():
    return factory(Counting())


def unseeded():
    """As from a factory that seeds by the clock; torch's own default seed is a constant."""
    torch.seed()
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def spec_of(name="momentum", processes=1, **training):
    settings = {
        "epochs": EPOCHS, "batch_size": 5, "optimizer": OPTIMIZERS[name], "clip_norm": 0.5, "processes": processes,
        "augment": AugmentSettings(shift=1),
    }  # fmt: skip
    return RunSpec(0, ModelSettings(), TrainingSettings(**settings | training), "data")


def plan_of(folder, **capture):
    capture, ids = CaptureSettings(**{"methods": METHODS} | capture), [f"s{i}" for i in range(N)]
    return CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")


def train(folder, spec, made=factory, capture=None, **options):
    return train_with_capture(spec, made, data(), plan_of(folder, **capture or {}), **options)


def recorded():
    """A loop of one's own in one of several processes."""
    model = factory()
    with record(model, torch.optim.SGD(model.parameters(), lr=0.1), "ledger", sample_ids=["a"]):
        raise AssertionError("not refused")


def main(folder, killed_at):
    """A run on two processes whose asking process kills itself once so many steps are done."""

    def progress(stage, done, total):
        if (stage, done) == ("train", killed_at):
            pids = [process.pid for process in multiprocessing.active_children()]
            (folder / "started").write_text(json.dumps(pids))
            killed()

    train(folder, spec_of(processes=2), partial(factory), progress=progress)
