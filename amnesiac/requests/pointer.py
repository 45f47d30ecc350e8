"""The pointer that git keeps in the journal's place: it holds no id."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pointer:
    """The journal's first `count` requests; `sha256` is over their ids, kinds, HMACs and times (`chain.point`)."""

    count: int
    sha256: str


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Write a pointer as JSON, atomically."""
    write_json(path, asdict(pointer))


def read_pointer(path: Path) -> Pointer:
    """Read a pointer; raises DamagedStore when the file is missing or malformed."""
    remedy = "restore it from git, or file the requests again"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedStore(
            f"{path} can't be read as a pointer into the requests journal ({error}): {remedy}"
        ) from error
    if not isinstance(value, dict) or value.keys() != {"count", "sha256"}:
        raise DamagedStore(f"{path} isn't {{count, sha256}}: {remedy}")
    count, sha256 = value["count"], value["sha256"]
    if type(count) is not int or count < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise DamagedStore(f"{path} holds a count or sha256 that can't be one: {remedy}")
    return Pointer(count, sha256)
