"""Which published batches are to be erased, and why others wait."""

from datetime import UTC, datetime, timedelta

from amnesiac.errors import SpecMismatch, StoreError
from amnesiac.publication import Head
from amnesiac.requests import DeletionBatch
from tasks.catalog import catalog


def resting(batch: DeletionBatch) -> str | None:
    """Why a published batch isn't erased yet; None when it is its turn."""
    if batch.reached("KEYS_DESTROYED"):
        return None
    if (until := grace_ends(batch)) > datetime.now(UTC):
        return f"it can be rolled back until {until:%Y-%m-%dT%H:%M:%SZ}"
    if not _of_this_run():
        return "data, settings or ledger are of another run than what is published: publish this run first"
    return None


def grace_ends(batch: DeletionBatch) -> datetime:
    """When a published batch's keys may be destroyed: at once where it erases again who came back from a backup."""
    published = next(event.at for event in reversed(batch.events) if event.state == "PUBLISHED")
    days = 0.0 if batch.facts("PLANNED").get("restored") else catalog().params().erasure.grace_days
    return datetime.fromisoformat(published) + timedelta(days=days)


def due_batches() -> tuple[DeletionBatch, ...]:
    """Published batches that are to be erased now, the oldest first."""
    published = [batch for batch in catalog().batches().unfinished() if batch.reached("PUBLISHED")]
    return tuple(batch for batch in published if resting(batch) is None)


def _of_this_run() -> bool:
    """Whether prepared data, settings and ledger are of the run that is published."""
    from amnesiac.ledger.manifest import read_manifest  # takes torch

    at, head = catalog(), head_of_batch()
    try:
        ours = at.run_spec().run_id(at.params().capture)
        return ours == head.run_id == read_manifest(at.ledger).run_id
    except StoreError:
        return False


def head_of_batch() -> Head:
    """HEAD, where a batch is published; raises SpecMismatch where it is missing."""
    head = catalog().head()
    if head is None:
        raise SpecMismatch("a batch is published, and there is no HEAD: restore pipeline_data/published from a backup")
    return head
