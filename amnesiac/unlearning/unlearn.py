"""Carrying out a deletion: what the method takes from the ledger is added to the weights."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.amnesiac_batch import AMNESIAC_BATCH
from amnesiac.unlearning.layerwise_partial import LAYERWISE_PARTIAL
from amnesiac.unlearning.method import Method
from amnesiac.unlearning.per_sample_delta import PER_SAMPLE_DELTA
from amnesiac.unlearning.per_sample_subset import PER_SAMPLE_SUBSET
from amnesiac.unlearning.settled import SETTLED

METHODS: Mapping[str, Method] = {
    method.name: method for method in (SETTLED, PER_SAMPLE_DELTA, PER_SAMPLE_SUBSET, AMNESIAC_BATCH, LAYERWISE_PARTIAL)
}


@dataclass(frozen=True)
class Unlearned:
    """weights: after the deletion;  ledger, rows: which rows were read and how many;  seconds: reading, summing and
    adding.
    """

    weights: dict[str, torch.Tensor]
    ledger: str
    rows: int
    row_bytes: int
    seconds: float


def ledgers_for(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """Everything that training must capture for the methods chosen in the settings."""
    return tuple(spec for name in capture.methods for spec in METHODS[name].ledgers(capture))


def unlearn(
    settings: UnlearningSettings, ledger: SealedLedger, weights: Mapping[str, torch.Tensor], forget: Sequence[int]
) -> Unlearned:
    """Weights without the training samples at positions `forget`.

    No training data is read. An empty forget set returns the weights bit for bit; order and grouping of `forget` don't
    matter. Raises IncompleteStore, DamagedStore, DamagedRow, SpecMismatch; then nothing has changed.
    """
    started = time.perf_counter()
    unlearned = {name: value.clone() for name, value in weights.items()}
    if not forget:
        return Unlearned(unlearned, "", 0, 0, time.perf_counter() - started)
    deletion = METHODS[settings.method].delete(ledger, sorted(set(forget)), settings)
    for name, part in deletion.delta.items():
        unlearned[name] = (weights[name].double() + part).to(weights[name].dtype)
    seconds = time.perf_counter() - started
    row_bytes = ledger.row_bytes(deletion.ledger)
    return Unlearned(unlearned, deletion.ledger, deletion.rows, row_bytes, seconds)
