"""KEYS_DESTROYED → PURGED: what can be reached of superseded models, references, scratch, pictures and DVC's copies."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.durable import sweep
from amnesiac.erasure import Purge, PurgedPlace, Target
from amnesiac.ledger.manifest import read_manifest
from amnesiac.publication import Version, read_staged, restore_candidate, withdraw
from amnesiac.requests import DeletionBatch, read_pointer
from tasks.catalog import STAGES, Catalog, catalog
from tasks.clearing_objects import object_plan, purge_objects
from tasks.erasing import erased_by, note
from tasks.evaluation import rewrite_report
from tasks.opaque import opaque
from tasks.publishing import reach
from tasks.purging import Collected, purge_dvc
from tasks.storing import mirrored
from tasks.training import reference_paths
from tasks.versioning import forget_stages, record_stages, stale_stages


@task(name="purge", cache_policy=NO_CACHE, persist_result=False)
@opaque
def purge_copies(batch: DeletionBatch) -> DeletionBatch:
    """KEYS_DESTROYED → PURGED."""
    return purged(batch)


def purged(batch: DeletionBatch) -> DeletionBatch:
    """Remove all that can be reached and that a published version or an erasure has superseded; tell DVC.

    Killed anywhere it is done again: what goes is listed first, and what DVC called up to date is noted before.
    Raises PurgeRefused, StoreError, VersioningError; then the batch stays where it is, and the next run tries again.
    """
    after = reach(batch, "PURGED", _purge)
    plan = purge_plan()
    if plan.unfinished:  # the counts are in the journal now
        plan.close()
    object_plan().close()
    return after


def purge_plan() -> Purge:
    """The list of what is to be removed, in the journal's folder: a killed run's is gone on with."""
    at = catalog()
    data = at.published.parent
    return Purge(at.journal / "purge.json", (data, at.root / ".prefect"))


def _purge(batch: DeletionBatch) -> dict[str, Any]:
    at, plan = catalog(), purge_plan()
    version = at.store().read(_published(at))
    clean = _noted_clean(batch, version)
    mirrored()  # consumers must find the new version before the old one goes
    sweep(at.published.parent)
    if _foreign(at, version):
        restore_candidate(version, at.unlearned)
    plan.add(_targets(batch, version), overwrite=True)
    removed = plan.run()
    rewrite_report()
    collected = _tell_dvc(at, clean)
    return {"purged": [*map(_removed, removed), *map(_collected, collected), *purge_objects()]}


def _published(at: Catalog) -> str:
    head = at.head()
    assert head is not None  # a batch is published
    return head.version


def _noted_clean(batch: DeletionBatch, version: Version) -> frozenset[str]:
    """The stages that DVC called up to date before anything was removed."""
    at, erased = catalog(), erased_by(batch)
    if erased.clean is None:
        stale = set(stale_stages(at.root)) | ({"unlearn", "evaluate"} if _foreign(at, version) else set())
        erased = replace(erased, clean=tuple(sorted(set(STAGES) - stale)))
        note(batch, erased)
    assert erased.clean is not None
    return frozenset(erased.clean)


def _foreign(at: Catalog, version: Version) -> bool:
    """Whether `unlearned/` holds anything else than the candidate that was published."""
    return not at.unlearned.exists() or dict(read_staged(at.unlearned)) != dict(version.facts)


def _targets(batch: DeletionBatch, version: Version) -> Iterable[Target]:
    at, keep = catalog(), _kept_versions(batch, version)
    if version.positions():  # of a model that has forgotten nobody there is no difference to take
        weights = withdraw(at.model, [name for name, _ in read_manifest(at.ledger).parameters])
        yield Target("trained model", weights)
    yield from (
        Target("superseded versions", at.store().versions / name) for name in at.store().ids() if name not in keep
    )
    references = reference_paths(version.positions())
    yield from (Target("references", path) for path in sorted(at.retrained.glob("*")) if path not in references)
    prefect = at.root / ".prefect" / "storage"
    for name, folder in (
        ("scratch", at.scratch), ("members of audits", at.ensembles), ("results of Prefect", prefect),
    ):  # fmt: skip
        yield from (Target(name, path) for path in (sorted(folder.iterdir()) if folder.is_dir() else ()))


def _kept_versions(batch: DeletionBatch, version: Version) -> set[str]:
    """HEAD's, and those of this and later batches, back to which can be rolled."""
    later = [b for b in catalog().batches().history() if b.number >= batch.number and not b.ended]
    facts = [one.facts("PUBLISHED") for one in later]
    return {version.id, *(str(fact["version"]) for fact in facts if fact)}


def _tell_dvc(at: Catalog, clean: Collection[str]) -> tuple[Collected, ...]:
    """Record what was up to date and is so again; what wasn't is forgotten, so that DVC keeps no copy of it."""
    known = set(clean)
    if "unlearn" in known and read_staged(at.unlearned)["pointer"] != _pointer(at):
        known.discard("unlearn")  # requests came in between a kill and this run: it must be staged again
    forget_stages(at.root, sorted(set(STAGES) - known))
    record_stages(at.root, sorted(known - {"prepare"}))
    return purge_dvc(at.root, sharing=at.params().erasure.sharing)


def _pointer(at: Catalog) -> dict[str, Any]:
    pointer = read_pointer(at.requests)
    return {"count": pointer.count, "sha256": pointer.sha256}


def _removed(place: PurgedPlace) -> dict[str, Any]:
    return {"place": "pipeline_data", "what": place.place, "count": place.files, "bytes": place.bytes}


def _collected(one: Collected) -> dict[str, Any]:
    return {"place": one.place, "what": "objects that dvc.lock doesn't name", "count": one.objects, "bytes": one.bytes}
