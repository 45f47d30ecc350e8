"""Versions in a folder, each under its content's hash: `versions/ID/`. Written aside, synced, then renamed."""

import json
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesiac.durable import sweep, sync_folder, whole_folder, write_bytes, write_json
from amnesiac.errors import DamagedStore, SpecMismatch
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.publication.version import (
    CORRECTION,
    FORGOTTEN,
    MASTER,
    MODEL,
    RECORD,
    SUBTRACTED,
    Version,
    read_version,
    record,
    record_id,
)

STAGED = "version.json"
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class VersionStore:
    """The versions below `folder` (where HEAD.json lies as well)."""

    folder: Path

    @property
    def versions(self) -> Path:
        """The folder of all versions."""
        return self.folder / "versions"

    def write(self, staged: Path) -> Version:
        """Keep a staged candidate (see `candidate`) as a version; one that is there already is only checked.

        Nothing points to it yet. Raises DamagedStore when the candidate's weights aren't those it says, or the version
        that is there was damaged.
        """
        facts, sources = read_staged(staged), _sources(staged)
        files = {name: hash_file(path) for name, path in sources.items()}
        version_id = record_id(facts, files)
        destination = self.versions / version_id
        if not destination.exists():
            self.versions.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole_folder(destination) as aside:
                for name, path in sources.items():
                    write_bytes(aside / name, path.read_bytes())
                write_json(aside / RECORD, record(facts, files))
        version = self.read(version_id)
        version.check()
        return version

    def id_of(self, staged: Path) -> str:
        """The id that a candidate will have as a version; raises DamagedStore."""
        return record_id(read_staged(staged), {name: hash_file(path) for name, path in _sources(staged).items()})

    def read(self, version_id: str) -> Version:
        """A version by its id; raises SpecMismatch when it is missing, DamagedStore when its record was altered."""
        if not _ID.fullmatch(version_id):
            raise SpecMismatch(f"{version_id!r:.80} isn't a version's id (64 hex digits): see `amnesiac history`")
        return read_version(self.versions / version_id, version_id)

    def remove(self, version_id: str) -> None:
        """Delete a version; nothing happens where there is none. What HEAD names must stay: the caller sees to that."""
        folder = self.read(version_id).folder if (self.versions / version_id).exists() else None
        if folder is not None:
            shutil.rmtree(folder)
            sync_folder(self.versions)

    def ids(self) -> tuple[str, ...]:
        """Ids of all versions, sorted."""
        found = self.versions.iterdir() if self.versions.is_dir() else ()
        return tuple(sorted(path.name for path in found if _ID.fullmatch(path.name)))

    def sweep(self, keep: Collection[str]) -> list[str]:
        """Remove what a killed writer left: half-written files, and versions that were never published.

        keep: ids of all versions that were published. Names of what was removed.
        """
        left = sweep(self.folder) + sweep(self.versions)
        orphans = sorted(set(self.ids()) - set(keep))
        for orphan in orphans:
            shutil.rmtree(self.versions / orphan)
        return left + orphans


def restore_candidate(version: Version, staged: Path) -> None:
    """Write a published version as the candidate that it was, whole or not at all, over what is staged."""
    version.check()
    sources = {MASTER: MASTER, FORGOTTEN: FORGOTTEN, version.facts["published"]: MODEL}
    sources |= {CORRECTION: CORRECTION} if CORRECTION in version.files else {}
    sources |= {MODEL: SUBTRACTED} if SUBTRACTED in version.files else {}
    with whole_folder(staged) as aside:
        for name, source in sources.items():
            write_bytes(aside / name, (version.folder / source).read_bytes())
        write_json(aside / STAGED, dict(version.facts))


def read_staged(staged: Path) -> dict[str, Any]:
    """What a staged candidate covers; raises DamagedStore when it is missing or can't be read."""
    path = staged / STAGED
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DamagedStore(f"{path} can't be read: {error}. Run `amnesiac unlearn --force`") from error
    if missing := {"run_id", "requests", "published", "weights_sha256", "base_sha256"} - set(facts):
        raise DamagedStore(f"{path} lacks {', '.join(sorted(missing))}: run `amnesiac unlearn --force`")
    return facts


def _sources(staged: Path) -> dict[str, Path]:
    """Which file of the candidate becomes which of the version; refuses weights that were altered since."""
    facts = read_staged(staged)
    from amnesiac.models import load_weights  # torch takes a second to import, which who reads records doesn't wait for

    if not (staged / MODEL).exists() or hash_tensors(load_weights(staged / MODEL)) != facts["weights_sha256"]:
        raise DamagedStore(f"{staged / MODEL} is missing or was altered after it was staged: run `amnesiac unlearn`")
    names = {MODEL: facts["published"], MASTER: MASTER, FORGOTTEN: FORGOTTEN}
    if facts["published"] != MODEL:
        names[SUBTRACTED] = MODEL
    if facts.get("correction_sha256"):
        names[CORRECTION] = CORRECTION
    if missing := sorted(name for name in names.values() if not (staged / name).is_file()):
        raise DamagedStore(f"{staged} lacks {', '.join(missing)}: run `amnesiac unlearn --force`")
    return {name: staged / source for name, source in names.items()}
