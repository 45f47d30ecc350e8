"""What goes into the object store, where `storage.url` names one: rows, the published version, reports and receipts."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amnesiac.data.prepared import GROUP
from amnesiac.elsewhere import move_rows, read_elsewhere
from amnesiac.ledger.protection import ROWS
from amnesiac.publication import mirror
from amnesiac.settings import DataSettings
from amnesiac.storage import Storage, claim, copy_folder, fetch_folder, open_storage
from tasks.catalog import Catalog, catalog

PREPARED, LEDGER, PUBLISHED = "prepared", "ledger", "published"
_log = logging.getLogger("amnesiac.storing")


def own_storage(at: Catalog) -> Storage | None:
    """The project's object store, claimed as its own; None without one. Raises SettingsError, StoreError."""
    storage = at.storage()
    if storage is not None:
        claim(storage, at.key_store().store_id)
    return storage


def groups(at: Catalog) -> dict[str, Path]:
    """The Zarr groups whose rows go into the store, by what they lie below there."""
    return {PREPARED: at.prepared / GROUP, LEDGER: at.ledger / ROWS}


def move_out(name: str) -> bool:
    """Put the rows of the prepared data or of the ledger into the object store; whether there is one."""
    at = catalog()
    storage = own_storage(at)
    if storage is None:
        return False
    found = move_rows(groups(at)[name], storage.below(name))
    _log.info("the rows of %s lie below %s", name, storage.below(name, found).url)
    return True


def named_rows(at: Catalog) -> dict[str, str | None]:
    """Under which name the rows of each group lie in the store; None where they lie here."""
    found = {name: read_elsewhere(group) for name, group in groups(at).items()}
    return {name: address.prefix.rpartition("/")[2] if address else None for name, address in found.items()}


def mirrored() -> bool:
    """Bring the store's HEAD to where ours is; whether there are both. May be repeated."""
    at = catalog()
    storage = own_storage(at) if at.head() else None
    if storage is None:
        return False
    mirror(at.store(), storage.below(PUBLISHED))
    return True


def copied() -> bool:
    """Bring the store's copies of reports and receipts up to date; whether there are any."""
    at = catalog()
    there = [folder for folder in (at.reports, at.receipts) if folder.exists()]
    storage = own_storage(at) if there else None
    if storage is None:
        return False
    for folder in there:
        copy_folder(folder, storage.below(folder.name))
    return True


@contextmanager
def fetched(settings: DataSettings) -> Iterator[DataSettings]:
    """The settings with `data.url` fetched to a path, for as long as the block needs it; unchanged without a URL.

    What is fetched is people's data in clear: it doesn't outlive the block, and scratch is purged and searched.
    """
    if settings.url is None:
        yield settings
        return
    folder = catalog().scratch / "source"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield settings.model_copy(update={"path": _fetch(settings.url, folder), "url": None})
    finally:
        shutil.rmtree(folder)


def _fetch(url: str, folder: Path) -> Path:
    """A single object under its own name, or all below a prefix."""
    storage = open_storage(url)
    parent, _, name = storage.address.prefix.rpartition("/")
    if fetch_folder(storage, folder / name):
        return folder / name
    above = open_storage(f"s3://{storage.address.bucket}/{parent}")
    above.fetch(name, folder / name)
    return folder / name
