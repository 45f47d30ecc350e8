"""After an old backup was restored: whoever was erased since it was made is found by the tombstones, and erased again.

Tombstones, journal and receipts are kept apart from what is backed up (docs/backup.md), so they are newer than the
restored keys. What requests named is known no more, but the data holds the erased again, so a request of its own names
them; it is carried out like any other, at once, and its receipt says when.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from amnesiac.erasure import Tombstones
from amnesiac.errors import SpecMismatch, StoreError
from amnesiac.receipts import Chain
from amnesiac.requests import DeletionRequest, RequestDraft
from tasks.catalog import Catalog, catalog
from tasks.stages import writing

if TYPE_CHECKING:
    from amnesiac.data import PreparedDataset

REASON = "erased before, and back from a backup"


@dataclass(frozen=True)
class Restored:
    """How many samples of the erased could be read again, and the request that names them; None where there were none.

    missing: requests that were carried out and that the restored HEAD doesn't know; the next version covers them again
    """

    samples: int
    request_id: str | None
    missing: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def came_back(at: Catalog, dataset: "PreparedDataset | None" = None) -> frozenset[str]:
    """Ids of samples that tombstones call erased, and whose keys are there all the same; `dataset` if it is open."""
    tombstones = Tombstones(at.tombstones)
    if not len(tombstones) or not at.prepared.exists() or _is_erasing(at):
        return frozenset()
    dataset = dataset or at.dataset()
    samples, subjects = dataset.index["sample_id"].astype(str), dataset.index["subject_id"].astype(str)
    found = tombstones.mask(samples.tolist(), subjects.tolist()) & ~dataset.erased
    return frozenset(samples[found])


def refuse_unnamed(back: frozenset[str], requests: Sequence[DeletionRequest]) -> None:
    """Raise SpecMismatch unless journalled requests that can still be read name all who came back."""
    named = {
        value for request in requests if request.kind == "samples" and not request.redacted for value in request.values
    }
    if left := back - named:
        raise SpecMismatch(
            f"{len(left)} samples of this data were erased, and their keys are there again: a backup of before was "
            "restored. Nothing was changed. Run `amnesiac restore`, which erases them again"
        )


def file_restored() -> Restored:
    """File a request for all who came back, under the writer lock; none where they are named already.

    Raises StoreError when tombstones or receipts of what was carried out are missing: then journal, tombstones and
    receipts aren't those that were kept apart.
    """
    at = catalog()
    with writing("restore"):
        _refuse_incomplete(at)
        back, requests = came_back(at), at.open_journal().requests()
        head = at.head()
        missing = len(_carried_out(at) - set(head.requests if head else ()))
        if not back:
            return Restored(0, None, missing)
        pending = [r for r in requests if r.reason == REASON and not r.redacted and back <= set(r.values)]
        number = 1 + sum(request.reason == REASON or request.request_id.startswith("restored-") for request in requests)
        name = pending[-1].request_id if pending else f"restored-{number}"
        if not pending:
            draft = RequestDraft("samples", tuple(sorted(back)), name, REASON)
            at.open_journal().file([draft], at.dataset().index)
        return Restored(len(back), name, missing)


def _is_erasing(at: Catalog) -> bool:
    """Whether a batch is between its tombstones and the end of its keys: then nobody came back."""
    return any(batch.reached("PUBLISHED") and at.batches().held(batch) for batch in at.batches().unfinished())


def _refuse_incomplete(at: Catalog) -> None:
    done, chain = _carried_out(at), Chain(at.receipts)
    if done and not len(Tombstones(at.tombstones)):
        raise StoreError(
            f"{len(done)} requests were carried out, and {Tombstones(at.tombstones).path} names nobody: restore it "
            "from the copy that was kept apart, without it nobody knows who was erased"
        )
    if lost := [name for name in sorted(done) if chain.find(name) is None]:
        raise StoreError(
            f"{len(lost)} requests were carried out and have no receipt in {at.receipts}, the first {lost[0]!r}: "
            "restore the receipts that were kept apart"
        )


def _carried_out(at: Catalog) -> set[str]:
    """Requests that have their receipts, as the journal says."""
    return {name for name, state in at.batches().request_states().items() if state == "RECEIPTED"}
