"""HEAD.json: which version is published. Replacing it, one rename, is the moment at which a deletion takes effect."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, SpecMismatch, StaleWriter
from amnesiac.hashing import hash_json
from amnesiac.publication.store import VersionStore
from amnesiac.publication.version import Version

FILE_NAME = "HEAD.json"


@dataclass(frozen=True)
class Head:
    """What is published.

    requests:     ids of all requests that it covers ("applied" means: named here)
    run_id, ledger_roots, base_sha256: of the training run, its rows and its trained weights
    fence:        of the writer that put it here, larger than all before
    predecessor:  the version that was published before, None for the first
    batch:        the deletion batch that published this version
    """

    version: str
    requests: tuple[str, ...]
    run_id: str
    ledger_roots: Mapping[str, str]
    base_sha256: str
    fence: int
    predecessor: str | None
    batch: int


def head_of(version: Version, fence: int, predecessor: str | None, batch: int) -> Head:
    """The HEAD that publishes a version."""
    facts = version.facts
    return Head(
        version.id, tuple(facts["requests"]), facts["run_id"], facts["ledger_roots"], facts["base_sha256"], fence,
        predecessor, batch,
    )  # fmt: skip


def read_head(store: VersionStore, run_id: str | None = None) -> Head | None:
    """What is published; None while nothing is.

    Raises DamagedStore when HEAD was altered, SpecMismatch when it names a version that is missing, says something else
    than that version's record, or belongs to another run than `run_id`.
    """
    path = store.folder / FILE_NAME
    head = _read(path)
    if head is None:
        return None
    if head != head_of(store.read(head.version), head.fence, head.predecessor, head.batch):
        raise SpecMismatch(f"{path} doesn't say what version {head.version[:12]} does: restore both from one backup")
    if run_id not in (None, head.run_id):
        raise SpecMismatch(
            f"{path} publishes a version of run {head.run_id}, model and ledger belong to run {run_id}: they are out "
            "of step. Restore them with `dvc checkout`, or publish a version of the new run (`amnesiac publish`)"
        )
    return head


def swap_head(store: VersionStore, expected: str | None, new: Head) -> None:
    """Publish: replace HEAD, which must name version `expected` (None: there is none yet), by one atomic rename.

    Raises StaleWriter when HEAD has moved or its fence isn't smaller, DamagedStore when it can't be read, SpecMismatch
    when the new version is missing; then nothing has changed.
    """
    path = store.folder / FILE_NAME
    store.read(new.version)
    with _locked(store.folder):
        now = _read(path)
        found = now.version if now else None
        if found != expected:
            raise StaleWriter(
                f"{path} names version {_short(found)}, not {_short(expected)}, which this one was to replace: another "
                "writer has published meanwhile. Run `amnesiac status`"
            )
        if now is not None and new.fence <= now.fence:
            raise StaleWriter(
                f"{path} was put there by a writer with fence {now.fence}, this one has {new.fence} and was taken for "
                "dead: nothing was published. Run `amnesiac status`"
            )
        content = asdict(new)
        write_json(path, {"head": content, "sha256": hash_json(content)})


def _short(version: str | None) -> str:
    return version[:12] if version else "none"


def _read(path: Path) -> Head | None:
    try:
        return parse_head(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedStore(f"{path} can't be read ({error!r}): restore it from a backup") from error


def parse_head(text: bytes, where: str) -> Head:
    """HEAD from the content of its file; raises DamagedStore, which names `where` it stood."""
    try:
        stored: dict[str, Any] = json.loads(text)
        content = stored["head"]
        head = Head(**{**content, "requests": tuple(content["requests"])})
        intact = stored["sha256"] == hash_json(content)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{where} can't be read ({error!r}): restore it from a backup") from error
    if not intact:
        raise DamagedStore(f"{where} was altered: its own digest differs. Restore it from a backup")
    return head


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock on the folder itself, which its holder's death frees."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
