"""The published version in an object store, where consumers load it from.

    versions/ID/model.safetensors, record.json   what is published, under its content's hash
    HEAD.json                                    the same bytes as here; replaced by a conditional put

The local HEAD is the commit point of a deletion. This one follows it, before anything that it names is removed, and it
never goes back: a writer whose fence is older, or who lost a race, changes nothing.
"""

from pathlib import Path

from amnesiac.durable import whole_folder
from amnesiac.errors import DamagedStore, SpecMismatch, StaleWriter
from amnesiac.publication.head import FILE_NAME, Head, parse_head, read_head
from amnesiac.publication.store import VersionStore
from amnesiac.publication.version import MODEL, RECORD, Version, read_version
from amnesiac.storage import Storage, write_folder

VERSIONS = "versions"
_ATTEMPTS = 3


def mirror(store: VersionStore, storage: Storage) -> Head | None:
    """Bring an object store's HEAD to where the local one is; that HEAD, None while nothing is published.

    Raises StaleWriter when another writer has published there since, DamagedStore, StoreError when the server can't be
    reached: then its HEAD is what it was, and the call may be repeated.
    """
    head = read_head(store)
    if head is None:
        return None
    content, (there, tag) = (store.folder / FILE_NAME).read_bytes(), _head_there(storage)
    if there not in (None, content):
        _refuse_stale(parse_head(there, f"{storage.url}/{FILE_NAME}"), head, storage)
    version = store.read(head.version)
    version.check()
    write_folder(storage.below(VERSIONS, version.id), version.folder, [MODEL, RECORD])
    if there != content:
        storage.swap(FILE_NAME, content, tag)
    return head


def fetch_published(storage: Storage, destination: Path) -> tuple[Head, Version]:
    """What is published in an object store, written to a folder, whole or not at all, and checked against its hashes.

    A version that is replaced and purged meanwhile is no error: the next one is fetched then. Raises SpecMismatch when
    nothing is published there, DamagedStore, StoreError.
    """
    for _ in range(_ATTEMPTS):
        content, _ = _head_there(storage)
        if content is None:
            raise SpecMismatch(f"{storage.url} publishes nothing: is this the URL of a project's `published` folder?")
        head = parse_head(content, f"{storage.url}/{FILE_NAME}")
        try:
            return head, _fetch(storage.below(VERSIONS, head.version), head.version, destination)
        except FileNotFoundError:
            continue
    raise DamagedStore(
        f"{storage.url} names version {head.version[:12]}, of which files are missing: `amnesiac publish` where it "
        "was published puts them back"
    )


def _fetch(place: Storage, version_id: str, destination: Path) -> Version:
    with whole_folder(destination) as aside:
        for name in (RECORD, MODEL):
            place.fetch(name, aside / name)
        read_version(aside, version_id).weights()
    return read_version(destination, version_id)


def _head_there(storage: Storage) -> tuple[bytes | None, str | None]:
    try:
        return storage.tagged(FILE_NAME)
    except FileNotFoundError:
        return None, None


def _refuse_stale(there: Head, ours: Head, storage: Storage) -> None:
    if there.fence >= ours.fence:
        raise StaleWriter(
            f"{storage.url}/{FILE_NAME} was put there by a writer with fence {there.fence}, ours is {ours.fence}: "
            "another project, or another copy of this one, publishes there. Give each its own storage.url; nothing was "
            "changed"
        )
