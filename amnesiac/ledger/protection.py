"""Who owns which row of a ledger: a sample's rows are its own, a whole update belongs to its step alone.

An update of a step holds parts of all samples of its mini-batch. So it has a key of its own, which is destroyed with
the first of these samples that is erased (`step_numbers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from amnesiac.keys import Encrypted, KeyStore, sample_name, step_name
from amnesiac.keys.store import Numbers
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.rowstore import Checksum, RowArray, RowSeal

ROWS = "rows.zarr"
STEP_KEYS = "step-keys.safetensors"


@dataclass(frozen=True)
class Owners:
    """Data keys of a run.

    samples: each training sample's, `[n]`;  steps: each step's, `[steps]`, empty without such rows
    """

    store: KeyStore
    samples: Numbers
    steps: Numbers


@dataclass(frozen=True)
class RowPlace:
    """Where a run's row arrays go and how their rows are protected; rows of samples, rows of steps."""

    group: Path
    run_id: str
    samples: RowSeal
    steps: RowSeal

    def array(self, spec: LedgerSpec) -> RowArray:
        """The array of one kind of rows."""
        return RowArray(self.group, spec.name, self.run_id, self.steps if spec.per == "step" else self.samples)


def owners(store: KeyStore, run_id: str, sample_ids: Sequence[str], steps: int) -> Owners:
    """The keys of a run's samples and of so many steps, made where there are none."""
    names = [sample_name(sample) for sample in sample_ids]
    numbers = store.ensure(names + [step_name(run_id, step) for step in range(steps)])
    return Owners(store, numbers[: len(names)], numbers[len(names) :])


def row_place(folder: Path, run_id: str, keys: Owners | None, captured: Numbers) -> RowPlace:
    """Of the ledger in `folder`; captured: the samples whose rows an array holds, in its order."""
    if keys is None:
        return RowPlace(folder / ROWS, run_id, Checksum(), Checksum())
    seals = Encrypted(keys.store, keys.samples[captured]), Encrypted(keys.store, keys.steps)
    return RowPlace(folder / ROWS, run_id, *seals)


def step_key_bytes(steps: Numbers) -> bytes:
    """The file that keeps the steps' key numbers: names alone don't give them back once keys are destroyed."""
    return save({"keys": np.ascontiguousarray(steps)})


def step_numbers(content: bytes) -> Numbers:
    """The inverse of `step_key_bytes`."""
    return np.asarray(load(content)["keys"], np.int64)
