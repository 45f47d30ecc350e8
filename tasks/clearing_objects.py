"""What a purge deletes in object stores: below `storage.url`, and the older versions below DVC's remotes on s3://."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from amnesiac.errors import StoreError
from amnesiac.publication.mirror import VERSIONS
from amnesiac.storage import Address, ObjectPurge, PurgedObjects, access, parse_address
from tasks.catalog import Catalog, catalog
from tasks.purging import s3_remotes
from tasks.storing import PUBLISHED, groups, named_rows, own_storage

_log = logging.getLogger("amnesiac.clearing")
Superseded = Callable[[str], str | None]


def object_plan() -> ObjectPurge:
    """The list of what goes, beside the journal."""
    return ObjectPurge(catalog().journal / "purge-objects.json")


def purge_objects() -> tuple[dict[str, Any], ...]:
    """Delete what is superseded, with all versions, as the journal keeps it. Raises StoreError; may be repeated."""
    plan = object_plan()
    for address, superseded in object_places(catalog()):
        plan.add(address, superseded)
    return tuple(map(_shown, plan.run()))


def object_places(at: Catalog) -> list[tuple[Address, Superseded]]:
    """Where the pipeline keeps objects, and what of them is superseded: of DVC's, only what isn't current."""
    storage = own_storage(at)
    own = [(storage.address, _superseded(at))] if storage else []
    return [*own, *((address, lambda name: None) for address in _remotes(at))]


def _superseded(at: Catalog) -> Superseded:
    """Versions that aren't published, and rows that no group names (where the group is there to name them)."""
    head, here = at.head(), {name for name, group in groups(at).items() if group.exists()}
    keep: Mapping[str, str | None] = {name: row for name, row in named_rows(at).items() if name in here}

    def what(name: str) -> str | None:
        first, _, rest = name.partition("/")
        if first == PUBLISHED and rest.startswith(f"{VERSIONS}/") and head is not None:
            return None if rest.split("/")[1] == head.version else "superseded versions"
        return "rows that nothing names" if first in keep and rest.split("/")[0] != keep[first] else None

    return what


def _remotes(at: Catalog) -> list[Address]:
    """DVC's remotes on the server of the environment; of others (profiles, other endpoints) the versions stay."""
    found = []
    for name, (url, endpoint) in s3_remotes(at.root).items():
        if (known := _endpoint()) is None or endpoint not in (None, known[0]):
            _log.warning("dvc remote %s: the environment doesn't reach it, so its older versions aren't purged", name)
        else:
            found.append(parse_address(url))
    return found


def _endpoint() -> tuple[str | None] | None:
    try:
        return (access().endpoint,)
    except StoreError:
        return None


def _shown(one: PurgedObjects) -> dict[str, Any]:
    return {"place": one.url, "what": one.what, "count": one.objects, "bytes": one.bytes}
