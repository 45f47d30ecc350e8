"""A training process that kills itself: `python killed_run.py FOLDER OPTIMIZER STAGE DONE`, run by test_resume.py.

It goes on from the last checkpoint in FOLDER, or starts there, and sends itself SIGKILL once `DONE` steps of `STAGE`
are done (STAGE `sealed`: after the ledger is sealed, before anything is tidied up).
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from amnesiac.progress import silent
from amnesiac.settings import (
    AugmentSettings,
    CaptureSettings,
    ModelSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from amnesiac.training.run import CapturePlan, train_with_capture
from amnesiac.training.spec import RunSpec
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
OPTIMIZERS = {
    "sgd": OptimizerSettings(lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": OptimizerSettings(name="adam", lr=0.01),
}
EPOCHS, STEPS = 3, 5


@dataclass(frozen=True)
class Data:
    inputs: torch.Tensor
    labels: torch.Tensor


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*convolution, nn.Dropout(0.2), nn.Linear(48, 3))


def run(folder, optimizer, *, resume, progress=silent, **training):
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.randn(18, 1, 6, 6, generator=generator), torch.arange(18) % 3)
    settings = {
        "epochs": EPOCHS, "batch_size": 4, "optimizer": OPTIMIZERS[optimizer], "clip_norm": 1.0, "threads": 1,
        "schedule": ScheduleSettings(name="cosine"), "augment": AugmentSettings(shift=1, flip=True),
    }  # fmt: skip
    spec = RunSpec(0, ModelSettings(), TrainingSettings(**settings | training), "data")
    capture = CaptureSettings(methods=METHODS, rank=2)
    ids = [f"s{i}" for i in range(18)]
    plan = CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")
    result, _ = train_with_capture(spec, factory, data, plan, resume=resume, progress=progress)
    return result


def main(folder, optimizer, stage, done):
    def die(now, count, total):
        if (now, count) == (stage, int(done)):
            os.kill(os.getpid(), signal.SIGKILL)

    run(Path(folder), optimizer, resume=True, progress=die)
    die("sealed", 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
