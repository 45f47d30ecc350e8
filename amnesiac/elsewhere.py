"""Rows of a Zarr group in an object store, and the file in the group that says so.

    elsewhere.json   {"url": "s3://bucket/prefix/NAME"}: there lies the whole group, under the hash of its content

Tables (tags, what is known of samples) and metadata stay in the local group as well: so its root is checked without a
request, DVC versions them (and with them, what the rows must be), and a reader asks for no more than the rows that it
wants.
"""

import hashlib
import json
import shutil
from pathlib import Path

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, SettingsError
from amnesiac.storage import Address, Storage, parse_address, write_folder

ELSEWHERE = "elsewhere.json"
TABLES = (".tags", ".table")  # of what is in a group: they stay here


def move_rows(group: Path, storage: Storage) -> str:
    """Put a group's rows below a storage and remove them here; the name under which they lie there.

    What is there already isn't sent again. A process that is killed before ELSEWHERE is written has changed nothing
    here. Raises StoreError when the server can't be reached.
    """
    name = _content_name(group)
    place = storage.below(name)
    write_folder(place, group, [str(path.relative_to(group)) for path in _files(group)])
    write_json(group / ELSEWHERE, {"url": place.url})
    for shards in _shards(group):
        shutil.rmtree(shards)
    return name


def read_elsewhere(group: Path) -> Address | None:
    """Where a group's rows lie if not here; raises DamagedStore when the file that says it can't be read."""
    path = group / ELSEWHERE
    try:
        return parse_address(str(json.loads(path.read_text())["url"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SettingsError) as error:
        raise DamagedStore(f"{path} can't be read: {error}. Restore it with `dvc checkout`") from error


def _content_name(group: Path) -> str:
    """BLAKE2b over metadata and tags of all arrays: a tag binds its row's bytes, so other rows get another name."""
    digest = hashlib.blake2b(digest_size=16)
    for path in _files(group):
        if path.name == "zarr.json" or path.relative_to(group).parts[0].endswith(TABLES):
            digest.update(f"{path.relative_to(group)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _files(group: Path) -> list[Path]:
    return sorted(path for path in group.rglob("*") if path.is_file() and path.name != ELSEWHERE)


def _shards(group: Path) -> list[Path]:
    arrays = [path for path in sorted(group.iterdir()) if path.is_dir() and not path.name.endswith(TABLES)]
    return [array / "c" for array in arrays if (array / "c").is_dir()]
