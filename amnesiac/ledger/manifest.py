"""The manifest of a sealed ledger: what it holds, for which run, and the digests that show it is whole."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, UnsealedStore
from amnesiac.hashing import hash_json

FORMAT = 3
NAME = "manifest.json"


@dataclass(frozen=True)
class LedgerEntry:
    """One row array: its codec, how many rows, and the root over their tags."""

    rows: int
    row_bytes: int
    codec: dict[str, Any]
    root: str


@dataclass(frozen=True)
class Manifest:
    """Everything that must match before a row of the ledger is used.

    run:          what the caller says about the run (specification, hashes of model and data)
    index_root:   of the table of all training samples that deletions read a few pages of (ledger.index)
    classes:      training samples of each class, by class number as text; empty where classes aren't known
    visits:       expected visits a sample, samples, smallest and largest number of visits recorded
    attachments:  further files and their SHA-256
    store_id:     of the key store that rows and ids are encrypted with; None: they lie in clear
    residual:     ||theta_T - theta_0 + sum of rows|| / ||theta_T - theta_0||, for ledgers that cover all samples and
    parameters
    """

    run_id: str
    run: dict[str, Any]
    optimizer: dict[str, Any]
    parameters: list[Any]
    initial_sha256: str
    final_sha256: str
    samples_sha256: str
    index_root: str
    classes: dict[str, int]
    visits: dict[str, int]
    entries: dict[str, LedgerEntry]
    residual: dict[str, float]
    attachments: dict[str, str]
    format: int = FORMAT
    store_id: str | None = None
    versions: dict[str, str] = field(default_factory=lambda: library_versions())

    def write(self, folder: Path) -> None:
        """Seal: a ledger without this file is open. Written last, durably."""
        content = asdict(self)
        write_json(folder / NAME, {"manifest": content, "sha256": hash_json(content)})


def read_manifest(folder: Path) -> Manifest:
    """Raises UnsealedStore when there is none, DamagedStore when it was altered or has another format."""
    path = folder / NAME
    if not path.exists():
        raise UnsealedStore(
            f"{folder} isn't a sealed ledger ({NAME} is missing): its training run has not finished; "
            "finish it with `amnesiac train --resume`"
        )
    try:
        stored = json.loads(path.read_text())
        content: Mapping[str, Any] = stored["manifest"]
        intact = stored["sha256"] == hash_json(content)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read: {error}. Restore the ledger with `dvc checkout`") from error
    if not intact:
        raise DamagedStore(f"{path} was altered: its own digest differs. Restore the ledger with `dvc checkout`")
    if content["format"] != FORMAT:
        raise DamagedStore(f"{path} has format {content['format']}, this version reads {FORMAT}: train again")
    return Manifest(**{**content, "entries": {k: LedgerEntry(**e) for k, e in content["entries"].items()}})


def library_versions() -> dict[str, str]:
    """What decides the bits."""
    names = ("torch", "numpy", "zarr", "tensorstore", "cryptography", "amnesiac")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
