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
    """The result of a deletion.

    weights:    after the deletion, in the model's own precision
    master:     the same before rounding, float64: what the next batch goes on from
    correction: what was added beyond the plain sum of rows (method.Deletion), None for nothing
    ledger, rows, row_bytes: which rows were read, how many, how long;  seconds: reading, summing and adding
    """

    weights: dict[str, torch.Tensor]
    master: dict[str, torch.Tensor]
    correction: dict[str, torch.Tensor] | None
    ledger: str
    rows: int
    row_bytes: int
    seconds: float


def ledgers_for(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """Everything that training must capture for the methods chosen in the settings."""
    return tuple(spec for name in capture.methods for spec in METHODS[name].ledgers(capture))


def unlearn(
    settings: UnlearningSettings,
    ledger: SealedLedger,
    weights: Mapping[str, torch.Tensor],
    forget: Sequence[int],
    *,
    before: Sequence[int] = (),
    master: Mapping[str, torch.Tensor] | None = None,
) -> Unlearned:
    """Weights without the training samples at positions `forget`.

    before: positions that earlier batches deleted (whether a class is gone depends on all of them)
    master: that the last of those batches ended with; None starts from `weights`, the trained model

    No training data is read. An empty forget set returns the weights bit for bit; order, grouping and batching of
    `forget` don't matter, except that samples which went before the rest of their class keep the change they made then
    (settled.py). Raises IncompleteStore, DamagedStore, DamagedRow, SpecMismatch; then nothing has changed.
    """
    started = time.perf_counter()
    start = {k: v.double() if v.is_floating_point() else v.clone() for k, v in (master or weights).items()}
    new = sorted(set(forget) - set(before))
    if not new:
        return Unlearned(_like(weights, start), start, None, "", 0, 0, time.perf_counter() - started)
    deletion = METHODS[settings.method].delete(ledger, new, settings, before)
    ended = start | {name: start[name] + part for name, part in deletion.delta.items()}
    seconds, row_bytes = time.perf_counter() - started, ledger.row_bytes(deletion.ledger)
    return Unlearned(
        _like(weights, ended), ended, deletion.correction, deletion.ledger, deletion.rows, row_bytes, seconds
    )


def _like(weights: Mapping[str, torch.Tensor], master: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The master in the model's own precision."""
    return {name: value.to(weights[name].dtype, copy=True) for name, value in master.items()}
