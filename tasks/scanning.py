"""PURGED → SCANNED: the search for what must be gone, in every place that the pipeline writes to."""

import logging
import os
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.erasure import Mark, Marked, Needle, ScanReport, id_needles, scan
from amnesiac.errors import ResidueFound
from amnesiac.requests import DeletionBatch
from tasks.catalog import Catalog, catalog
from tasks.clearing_objects import object_places
from tasks.erasing import Erased, erased_by
from tasks.opaque import opaque
from tasks.publishing import reach
from tasks.purging import cache_folder, local_remotes
from tasks.searching import joined, search_objects

_LISTED = 10
_log = logging.getLogger("amnesiac.scanning")


@task(name="scan for residues", cache_policy=NO_CACHE, persist_result=False)
@opaque
def scan_for_residues(batch: DeletionBatch) -> DeletionBatch:
    """PURGED → SCANNED."""
    return scanned(batch)


def scanned(batch: DeletionBatch) -> DeletionBatch:
    """Look for the erased ids, and for some rows and keys by their digests, outside of the journal.

    Raises ResidueFound naming the files; then the batch stays where it is, and the next run searches again.
    """
    return reach(batch, "SCANNED", _scan)


def places(at: Catalog) -> tuple[Path, ...]:
    """Where the pipeline writes: its data but for the journal, DVC's cache and local remotes, Prefect's home."""
    data = at.published.parent
    own = sorted(path for path in data.iterdir() if path != at.journal) if data.is_dir() else []
    homes = [at.root / ".prefect", at.root / ".dvc", at.root / "dvc.lock", at.keys, cache_folder(at.root)]
    homes += [Path(os.environ[name]) for name in ("PREFECT_HOME",) if name in os.environ]
    found = dict.fromkeys(path.resolve() for path in (*own, *homes, *local_remotes(at.root)) if path.exists())
    return tuple(path for path in found if not any(other in path.parents for other in found))


def _scan(batch: DeletionBatch) -> dict[str, Any]:
    erased = erased_by(batch)
    needles, known = _needles(erased), _marks(erased)
    at, marked = catalog(), Marked(known, bytes.fromhex(erased.marks_key))
    if needles or known:
        stores = [address for address, _ in object_places(at)]
        found = joined([scan(needles, places(at), marked=marked), *search_objects(stores, needles, marked, at.scratch)])
    else:
        found = scan(needles, (), marked=marked)
    if found.hits:
        raise ResidueFound(_explained(batch, found))
    if found.gaps:
        _log.warning("%d files couldn't be searched, the first %s", len(found.gaps), found.gaps[0].file)
    return {
        "places": [_shown(place) for place in found.places], "files": found.files, "bytes": found.bytes,
        "things": found.things, "hits": 0, "gaps": len(found.gaps), "kinds": _kinds(erased),
    }  # fmt: skip


def _ids(erased: Erased) -> list[str]:
    return list(dict.fromkeys([*erased.samples, *erased.subjects]))


def _needles(erased: Erased) -> list[Needle]:
    index, ids = catalog().dataset().index, _ids(erased)
    surviving = (set(index["sample_id"].astype(str)) | set(index["subject_id"].astype(str))) - set(ids)
    return id_needles(ids, surviving)


def _marks(erased: Erased) -> list[Mark]:
    """Rows and keys by their digests: the keys are gone, and what they opened with them."""
    known = [mark for some in erased.marks.values() for mark in some]
    return [Mark(number, *mark[1:]) for number, mark in enumerate(known, len(_ids(erased)))]


def _kinds(erased: Erased) -> dict[str, int]:
    """How many things of each kind are looked for."""
    ids = len(_ids(erased))
    return {"ids": ids, **dict.fromkeys(("image rows", "ledger rows", "keys"), 0)} | {
        kind: len(some) for kind, some in erased.marks.items()
    }


def _explained(batch: DeletionBatch, found: ScanReport) -> str:
    files = list(dict.fromkeys(hit.file for hit in found.hits))
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    things = len({hit.needle for hit in found.hits})
    return (
        f"batch {batch.number}: {things} of {found.things} things that must be gone are still in {len(files)} files: "
        f"{', '.join(files[:_LISTED])}{more}. Keys are destroyed, and the copies that the pipeline knows are purged: "
        "remove these files, or what names the erased in them (runs in Prefect's database: `prefect flow-run delete`), "
        "then run `amnesiac publish`, which searches again"
    )


def _shown(place: str) -> str:
    """Below the project as a relative path; a URL as it is."""
    root = catalog().root
    return str(Path(place).relative_to(root)) if Path(place).is_relative_to(root) else place
