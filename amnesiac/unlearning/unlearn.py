"""Carrying out a deletion: select rows, sum them exactly, add the sum to the weights."""

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

METHODS: Mapping[str, Method] = {
    method.name: method for method in (PER_SAMPLE_DELTA, PER_SAMPLE_SUBSET, AMNESIAC_BATCH, LAYERWISE_PARTIAL)
}


@dataclass(frozen=True)
class Unlearned:
    """weights: after the deletion;  rows: ledger rows that were read;  seconds: reading, summing and adding."""

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
    selection = METHODS[settings.method].select(ledger, sorted(set(forget)), settings)
    unlearned = {name: value.clone() for name, value in weights.items()}
    if selection.rows:
        for name, part in ledger.total(selection.ledger, selection.rows).items():
            unlearned[name] = (weights[name].double() + part).to(weights[name].dtype)
    seconds = time.perf_counter() - started
    return Unlearned(unlearned, selection.ledger, len(selection.rows), ledger.row_bytes(selection.ledger), seconds)
