"""Folders that are copied into an object store, file by file, and whose URL it is.

index.json   SHA-256 of each file that was copied: what is the same isn't sent again
owner.json   whose URL this is: two projects below one would purge each other's objects
"""

import hashlib
import json
from pathlib import Path

from amnesiac.errors import DamagedStore, SettingsError, StaleWriter
from amnesiac.storage.objects import Storage

INDEX, OWNER = "index.json", "owner.json"


def copy_folder(folder: Path, storage: Storage) -> int:
    """Make a storage hold what a folder does; how many files were sent. May be killed and repeated.

    Raises StoreError, DamagedStore when the index can't be read.
    """
    found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()} if folder.is_dir() else {}
    ours = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
    theirs = _index(storage)
    changed = [name for name, digest in ours.items() if theirs.get(name) != digest]
    gone = [name for name in theirs if name not in ours]
    for name in changed:
        storage.write(name, found[name])
    for name in gone:
        storage.delete(name)
    if changed or gone:
        storage.write(INDEX, _json(ours))
    return len(changed)


def claim(storage: Storage, owner: str) -> None:
    """Make a URL this project's, once and for all; raises SettingsError when it is another's.

    owner: what names the project, no secret
    """
    content = _json({"owner": owner})
    try:
        found = storage.read(OWNER)
    except FileNotFoundError:
        try:
            storage.swap(OWNER, content, None)
            return
        except StaleWriter:  # another was quicker
            found = storage.read(OWNER)
    if found != content:
        raise SettingsError(
            f"{storage.url} belongs to another project ({OWNER} there names another key store), whose objects a purge "
            "would remove: give each project its own prefix in storage.url"
        )


def _index(storage: Storage) -> dict[str, str]:
    try:
        return dict(json.loads(storage.read(INDEX)))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise DamagedStore(f"{storage.url}/{INDEX} can't be read: delete it, and all files are sent again") from error


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
