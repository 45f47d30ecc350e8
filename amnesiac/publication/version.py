"""A version of the model: weights, what they were made from, and a record with the hash of every file.

A version's id is the hash of its record, so it names its content: nothing in a version can change unnoticed.

    record.json              what the version covers (`facts`) and SHA-256 of each file
    model.safetensors        the published weights: what consumers load
    subtracted.safetensors   what the subtraction gave, where repaired or retrained weights were published instead
    master.safetensors       the same before rounding (float64): the next batch goes on from it
    correction.safetensors   the sum of what the batches added beyond their rows' plain sum, where there is any
    forgotten.safetensors    `positions`: int64, sorted, of the training samples forgotten so far
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesiac.durable import write_bytes
from amnesiac.errors import DamagedStore, SpecMismatch
from amnesiac.hashing import hash_file, hash_json

if TYPE_CHECKING:
    from amnesiac.models import StateDict

FORMAT = 1
RECORD, MODEL, SUBTRACTED = "record.json", "model.safetensors", "subtracted.safetensors"
MASTER, CORRECTION, FORGOTTEN = "master.safetensors", "correction.safetensors", "forgotten.safetensors"
REMEDY = "restore it from a backup, or withdraw it with `amnesiac rollback`"


@dataclass(frozen=True)
class Version:
    """A version that was read: its record is intact, its files are checked when they are loaded (or by `check`).

    facts: method, settings, run_id, base_sha256, ledger_roots, pointer, requests (ids), groups, samples, confidence …
    files: SHA-256 by name
    """

    folder: Path
    facts: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def id(self) -> str:
        """64 hex digits: the hash of the record."""
        return record_id(self.facts, self.files)

    @property
    def subtracted(self) -> Path:
        """The file of what the subtraction gave: the published one if that was published."""
        return self.folder / (SUBTRACTED if SUBTRACTED in self.files else MODEL)

    def check(self) -> None:
        """Raise DamagedStore naming the first file that is missing or altered."""
        for name in self.files:
            self._checked(name)

    def weights(self) -> "StateDict":
        """The published weights; raises DamagedStore."""
        return _loaded(self._checked(MODEL))

    def master(self) -> "StateDict":
        """The weights after the subtraction, before rounding; raises DamagedStore."""
        return _loaded(self._checked(MASTER))

    def correction(self) -> "StateDict | None":
        """The sum of the batches' corrections, None for nothing; raises DamagedStore."""
        return _loaded(self._checked(CORRECTION)) if CORRECTION in self.files else None

    def positions(self) -> tuple[int, ...]:
        """Sorted positions in the training split that are forgotten; raises DamagedStore."""
        return read_positions(self._checked(FORGOTTEN))

    def _checked(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file() or hash_file(path) != self.files.get(name):
            raise DamagedStore(f"{path} is missing or was altered: {REMEDY}")
        return path


def read_version(folder: Path, version_id: str) -> Version:
    """Read and check a version's record. Raises SpecMismatch when it is missing, DamagedStore when it was altered."""
    path = folder / RECORD
    if not path.exists():
        raise SpecMismatch(f"version {version_id[:12]} isn't in {folder.parent}: {REMEDY}")
    try:
        record = json.loads(path.read_text())
        version = Version(folder, record["facts"], record["files"])
        intact = record.keys() == {"format", "facts", "files"} and version.id == version_id
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read ({error!r}): {REMEDY}") from error
    if not intact:
        raise DamagedStore(f"{path} was altered: its hash isn't {version_id[:12]}, which names it: {REMEDY}")
    return version


def record(facts: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """What record.json holds."""
    return {"format": FORMAT, "facts": dict(facts), "files": dict(files)}


def record_id(facts: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The id of the version with this record."""
    return hash_json(record(facts, files))


def write_positions(path: Path, positions: tuple[int, ...]) -> None:
    """Write positions in the training split."""
    import torch
    from safetensors.torch import save

    write_bytes(path, save({"positions": torch.tensor(positions, dtype=torch.int64)}))


def read_positions(path: Path) -> tuple[int, ...]:
    """Positions as `write_positions` wrote them; raises DamagedStore."""
    tensors = _loaded(path)
    if "positions" not in tensors:
        raise DamagedStore(f"{path} holds no positions: {REMEDY}")
    return tuple(tensors["positions"].tolist())


def _loaded(path: Path) -> "StateDict":
    from amnesiac.models import load_weights  # torch takes a second to import, which who reads records doesn't wait for

    return load_weights(path)
