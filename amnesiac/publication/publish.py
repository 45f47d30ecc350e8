"""The commit point: a staged candidate becomes HEAD, is taken back, or what a killed writer left is put right."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from amnesiac.errors import BatchConflict, InputError, SpecMismatch
from amnesiac.publication.head import Head, head_of, read_head, swap_head
from amnesiac.publication.store import VersionStore
from amnesiac.publication.version import Version
from amnesiac.requests import Batches, DeletionBatch


@dataclass(frozen=True)
class Recovery:
    """What recovery found and did.

    batch:  the unfinished batch, None if there was none
    action: it was abandoned ("rolled back"), found published ("rolled forward"), is published and waits for what
            comes after ("goes on"), or there was nothing to do
    swept:  files and versions of a killed writer that were removed
    """

    batch: DeletionBatch | None
    action: Literal["nothing", "rolled back", "rolled forward", "goes on"]
    swept: tuple[str, ...]


def publish(batches: Batches, batch: DeletionBatch, store: VersionStore, staged: Path) -> Head:
    """Keep the candidate as a version and swap HEAD; the batch is PUBLISHED then. All or nothing.

    The swap happens under the journal's write lock, so that nobody can take the batch over between the check of its
    fence and the swap. Raises StaleWriter, BatchConflict, SpecMismatch when the candidate would take deletions back,
    DamagedStore.
    """
    version, now = store.write(staged), read_head(store)
    if now is not None:
        _refuse_taking_back(version, now)
    same = now is not None and now.version == version.id
    before = (now.predecessor if same else now.version) if now else None
    head = head_of(version, batch.fence, before, batch.number)
    with batches.advancing(batch, "PUBLISHED", published_facts(head, version)):
        swap_head(store, now.version if now else None, head)
    return head


def roll_back(batches: Batches, store: VersionStore) -> Head:
    """Publish HEAD's predecessor again; the requests of the batch between them are received, not applied, again.

    Raises InputError when there is no predecessor, BatchConflict when keys were destroyed since, SpecMismatch
    when the predecessor was purged.
    """
    now = read_head(store)
    if now is None or now.predecessor is None:
        raise InputError("nothing can be rolled back: no version, or only the first, was published")
    history = {batch.number: batch for batch in batches.history()}
    if now.batch in history and history[now.batch].reached("KEYS_DESTROYED"):
        raise BatchConflict(
            f"the erasure of deletion batch {now.batch} has begun ({history[now.batch].state}): the version before it "
            "holds erased samples and doesn't come back. To keep a time for rolling back, set erasure.grace_days"
        )
    version = store.read(now.predecessor)
    version.check()
    earlier = _published_as(history, now.predecessor)
    if now.batch not in history:
        raise SpecMismatch(f"HEAD names batch {now.batch}, which the journal doesn't hold: restore the journal")
    with batches.rolling_back(history[now.batch], {"version": now.version, "to": version.id}) as fence:
        facts = earlier.facts("PUBLISHED")
        head = head_of(version, fence, facts.get("predecessor"), earlier.number)
        swap_head(store, now.version, head)
    return head


def recover(batches: Batches, store: VersionStore) -> Recovery:
    """Put right what a killed writer left, under the writer lock: before the swap of HEAD back, after it forward.

    Raises DamagedStore and SpecMismatch when HEAD or the journal can't be trusted; then nothing is changed.
    """
    head = read_head(store)
    _finish_rollback(batches, head)
    found = batches.current()
    if found is None:
        return Recovery(None, "nothing", tuple(store.sweep(_known(batches, head))))
    batch, action = _settle(batches, found, head, store)
    return Recovery(batch, action, tuple(store.sweep(_known(batches, head))))


def published_facts(head: Head, version: Version) -> dict[str, Any]:
    """What the journal keeps of a publication: enough to find and repeat it."""
    facts = version.facts
    confidence = facts.get("confidence") or {}
    return {
        "version": head.version,
        "predecessor": head.predecessor,
        "run_id": head.run_id,
        "method": facts["method"],
        "scale": facts["settings"]["scale"],
        "pointer": facts["pointer"],
        "groups": facts["groups"],
        "requests": len(head.requests),
        "samples": facts["samples"],
        "drift": confidence.get("drift"),
        "published": facts["published"],
    }


def groups_of(batches: Batches, wanted: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """In which groups the first `count` requests were published by this run and method; all at once if never.

    wanted: run_id, method, scale and pointer, as `published_facts` has them
    """
    for batch in reversed(batches.history()):
        facts = batch.facts("PUBLISHED")
        if facts and all(facts[name] == value for name, value in wanted.items()):
            return tuple(facts["groups"])
    return (count,) if count else ()


def _refuse_taking_back(version: Version, now: Head) -> None:
    lost = set(now.requests) - set(version.facts["requests"])
    if lost:
        raise SpecMismatch(
            f"the staged version leaves out {len(lost)} requests that HEAD has applied, and nothing was published: a "
            "deletion is taken back by `amnesiac rollback` only. Run `amnesiac unlearn` to stage all requests"
        )


def _settle(
    batches: Batches, found: DeletionBatch, head: Head | None, store: VersionStore
) -> tuple[DeletionBatch, Literal["rolled back", "rolled forward", "goes on"]]:
    batch = batches.take_over(found)
    if batch.reached("PUBLISHED"):
        return batch, "goes on"
    if head is not None and head.batch == batch.number:  # killed between the swap and the journal's commit
        facts = published_facts(head, store.read(head.version))
        return batches.advance(batch, "PUBLISHED", facts | {"recovered": True}), "rolled forward"
    return batches.abandon(batch, "recovery: it wasn't published"), "rolled back"


def _finish_rollback(batches: Batches, head: Head | None) -> None:
    """HEAD was put back to an earlier batch's version, and the journal doesn't know yet."""
    for batch in batches.history() if head else ():
        if head and batch.number > head.batch and batch.state == "PUBLISHED" and not batch.ended:
            with batches.rolling_back(batch, {"version": batch.facts("PUBLISHED")["version"], "to": head.version}):
                pass


def _known(batches: Batches, head: Head | None) -> set[str]:
    """Versions that were published at some time."""
    facts = [batch.facts("PUBLISHED") for batch in batches.history()]
    return {fact["version"] for fact in facts if fact} | ({head.version} if head else set())


def _published_as(history: Mapping[int, DeletionBatch], version: str) -> DeletionBatch:
    """The latest batch that published a version and still counts."""
    for batch in sorted(history.values(), key=lambda batch: -batch.number):
        if not batch.ended and batch.facts("PUBLISHED").get("version") == version:
            return batch
    raise SpecMismatch(f"the journal knows no batch that published version {version[:12]}: restore the journal")
