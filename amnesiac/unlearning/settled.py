"""Settled deltas: each sample's contributions, weighed by the curvature of everything that came after them.

Rows are settled when the ledger is sealed, so that a deletion is their sum. A sample has two: one that saw the
curvature of all samples, and one that saw it without the sample's own class, which is used where the class
goes (method.md §7).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from amnesiac.curvature import FILE, Kappa, from_bytes, settle
from amnesiac.curvature.matrices import to_flat, to_matrix
from amnesiac.ledger.sealed import SealedLedger
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, UnlearningSettings
from amnesiac.unlearning.method import Deletion, Method, summed

LEDGER, CLASS_LEDGER, UNSETTLED = "settled", "settled-class", "contributions"
WHOLE_CLASS = 0.98


def ledgers(capture: CaptureSettings) -> tuple[LedgerSpec, ...]:
    """A settled row a sample, and one for deleting its class; or its contributions to each segment, unsettled."""
    form = capture.settled
    if form.rows == "unsettled":
        return (LedgerSpec(UNSETTLED, "segment", "rate", form=form),)
    few = LedgerSpec(LEDGER, "settled", "rate", form=form)
    return (few, LedgerSpec(CLASS_LEDGER, "settled class", "rate", form=form)) if form.class_rows else (few,)


def delete(
    ledger: SealedLedger, forget: Sequence[int], settings: UnlearningSettings, before: Sequence[int]
) -> Deletion:
    """The forgotten samples' rows: those for a whole class where nearly all of it has been deleted by now."""
    if UNSETTLED in ledger.manifest.entries:
        return _settled_now(ledger, forget)
    gone = classes_gone(ledger, [*forget, *before]) if CLASS_LEDGER in ledger.manifest.entries else set[int]()
    whole = [s for s, label in zip(forget, ledger.labels_of(forget).tolist(), strict=True) if label in gone]
    if not whole:
        return summed(ledger, LEDGER, ledger.sample_rows(forget))
    few = summed(ledger, LEDGER, ledger.sample_rows(sorted(set(forget) - set(whole))))
    by_class = summed(ledger, CLASS_LEDGER, ledger.sample_rows(whole))
    additive = ledger.total(LEDGER, ledger.sample_rows(whole))
    delta = {name: value + few.delta[name] for name, value in by_class.delta.items()}
    correction = {name: value - additive[name] for name, value in by_class.delta.items()}
    return Deletion(CLASS_LEDGER, len(forget), delta, correction)


def classes_gone(ledger: SealedLedger, deleted: Sequence[int]) -> set[int]:
    """Classes of which hardly a sample is left: less than 2 %."""
    return set(np.flatnonzero(class_shares(ledger, deleted) > WHOLE_CLASS).tolist())


def class_shares(ledger: SealedLedger, deleted: Sequence[int]) -> npt.NDArray[np.float64]:
    """Deleted samples of each class over all of them, `[classes]`; empty where classes are not known."""
    sizes = {int(label): count for label, count in ledger.manifest.classes.items()}
    counts = np.array([sizes.get(label, 0) for label in range(max(sizes, default=-1) + 1)], np.int64)
    taken = ledger.labels_of(np.unique(np.asarray(deleted, np.int64)).tolist())
    shares: npt.NDArray[np.float64] = np.bincount(taken[taken >= 0], minlength=len(counts)) / np.maximum(counts, 1)
    return shares


def _settled_now(ledger: SealedLedger, forget: Sequence[int]) -> Deletion:
    """Sum the contributions by segment, then settle them in the curvature of the samples that are left."""
    rows, curvature = ledger.sample_rows(forget), from_bytes(ledger.attachment(FILE))
    choices = ledger.manifest.entries[UNSETTLED].codec["settling"]
    shares = _forgotten_shares(ledger.labels_of(forget), curvature.counts)
    kappa = Kappa(**choices["whole" if (shares > WHOLE_CLASS).any() else "few"]["kappa"])
    sums = torch.from_numpy(ledger.segment_totals(UNSETTLED, rows)).float()
    parts, start = [], 0
    for k, block in enumerate(curvature.blocks):
        matrices = torch.stack([to_matrix(block, own) for own in sums[:, start : start + block.numel]])
        parts.append(to_flat(block, settle(curvature, k, matrices, kappa, shares)))
        start += block.numel
    return Deletion(UNSETTLED, len(rows), ledger.by_parameter(torch.cat(parts).double().numpy()))


def _forgotten_shares(forgotten: npt.NDArray[np.int64], counts: Sequence[int]) -> torch.Tensor:
    taken = np.bincount(forgotten, minlength=len(counts)) / np.maximum(np.array(counts), 1)
    return torch.from_numpy(taken).float()


SETTLED = Method(
    "settled",
    "subtract each sample's contributions as the later steps would have damped them",
    "this project: method.md §2-§7",
    ledgers,
    delete,
)
