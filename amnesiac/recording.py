"""Capture in a training loop that you already have: a context manager around it (see README.md)."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool
from amnesiac.errors import SettingsError
from amnesiac.hashing import hash_tensors
from amnesiac.keys import KeyStore
from amnesiac.ledger.seal import Run, seal
from amnesiac.settings import CaptureSettings
from amnesiac.unlearning.unlearn import ledgers_for


@contextmanager
def record(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ledger: Path | str,
    *,
    sample_ids: Sequence[str],
    subject_ids: Sequence[str] | None = None,
    capture: CaptureSettings | None = None,
    expected_visits: int | None = None,
    keys: KeyStore | None = None,
) -> Iterator[Recorder]:
    """Record every sample's contribution inside the block; leaving it seals the ledger at `ledger`.

    with record(model, optimizer, "run.ledger", sample_ids=ids) as recorder:
        ...
        with recorder.batch(rows):   # positions of this mini-batch's samples in `sample_ids`
            loss.backward()
        optimizer.step()

    The loss is a sum over samples divided by the scheduled mini-batch size (a mean, where all mini-batches are full).
    `expected_visits` makes sealing fail unless every sample was seen so often. With `keys` rows and ids are encrypted
    with their sample's key (a sample without a subject is its own). An error inside the block leaves no ledger, and an
    existing one untouched. Raises UnsupportedModel and UnsupportedOptimizer before the first step,
    SettingsError when `capture.classes` or the method "settled" is asked for (labels and curvature aren't known here),
    and in one of several processes that train together.
    """
    settings, destination = capture or CaptureSettings(), Path(ledger)
    if (processes := dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1) > 1:
        raise SettingsError(
            f"record() sees the samples of its own process, and {processes} train together: "
            "use amnesiac.training.train_with_capture with training.processes, which joins what all of them see"
        )
    if settings.classes is not None:
        raise SettingsError("capture.classes needs labels, which a loop of your own doesn't pass on: set it to None")
    if "settled" in settings.methods:
        raise SettingsError("'settled' needs the run's curvature, which only `amnesiac train` measures: take it out")
    specs = ledgers_for(settings)
    spool_folder = destination.with_name(f".{destination.name}.spool")
    initial = {name: value.detach().clone() for name, value in model.state_dict().items()}
    updates = {spec.name: spec.fraction for spec in specs if spec.per == "step"}
    try:
        recorder = Recorder(
            model,
            optimizer,
            Spool(spool_folder),
            rank=settings.rank,
            dtype=settings.dtype,
            updates=updates,
            samples=len(sample_ids),
            layers=settings.layers,
        )
        try:
            yield recorder
        finally:
            recorder.close()
        final = {name: value.detach().clone() for name, value in model.state_dict().items()}
        run = Run(
            hash_tensors(final)[:16], {"capture": settings.model_dump(mode="json")}, sample_ids,
            sample_ids if subject_ids is None else subject_ids, initial, final, expected_visits, keys=keys,
        )  # fmt: skip
        seal(spool_folder, destination, run, specs)
    finally:
        shutil.rmtree(spool_folder, ignore_errors=True)
