"""Settled deltas: each segment's contributions, weighed by the curvature of everything that came after it."""

from collections.abc import Sequence

import numpy as np
import torch

from amnesiac.curvature import FILE, RunCurvature, from_bytes, settle
from amnesiac.curvature.matrices import to_flat, to_matrix
from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method

LEDGER = "contributions"


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """One row a sample with its contributions to each segment apart, without Adam's preconditioner."""
    return (LedgerSpec(LEDGER, "segment", "rate"),)


def delete(ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings) -> Deletion:
    """Sum the contributions by segment, then settle them (eq. 2) in the curvature of the retained classes."""
    rows = ledger.sample_rows(forget)
    curvature = from_bytes(ledger.attachment(FILE))
    sums = torch.from_numpy(ledger.segment_totals(LEDGER, rows)).float()
    retained = retained_shares(curvature, ledger.samples["label"].to_numpy()[list(forget)])
    parts, start = [], 0
    for k, block in enumerate(curvature.blocks):
        own = sums[:, start : start + block.numel]
        matrices = torch.stack([to_matrix(block, segment) for segment in own])
        whitenings = [segment[k] for segment in curvature.whitenings] if curvature.whitenings else None
        settled = settle(curvature.layers[k], whitenings, matrices, curvature.rates, retained, settings.kappa)
        parts.append(to_flat(block, settled))
        start += block.numel
    return Deletion(LEDGER, len(rows), ledger.by_parameter(torch.cat(parts).double().numpy()))


def retained_shares(curvature: RunCurvature, forgotten: np.ndarray) -> torch.Tensor:
    """Retained samples of each class over all samples, `[classes]`: an eigenvalue is a mean over a class's samples."""
    counts = np.array(curvature.counts)
    left = counts - np.bincount(forgotten, minlength=len(counts))
    return torch.from_numpy(left / counts.sum()).float()


SETTLED = Method(
    "settled",
    "subtract each sample's contributions as the later steps would have damped them",
    "this project: method.md §2-§7",
    ledgers,
    delete,
)
