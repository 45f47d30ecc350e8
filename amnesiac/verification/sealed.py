"""What the verifier takes from a sealed ledger, each file checked against the manifest's hash of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from amnesiac.errors import DamagedStore, SettingsError
from amnesiac.keys import Encrypted, KeyStore, check_store, unseal_ids
from amnesiac.rowstore import Checksum, RowSeal
from amnesiac.verification.tensors import REMEDY, Tensors, read_bytes, read_tensors

MANIFEST, BASE = "manifest.json", "base.safetensors"
SAMPLES, VISITS, ROWS, SETTLED = "samples.parquet", "visits.parquet", "rows.zarr", "settled"
FORMAT = 3


@dataclass(frozen=True)
class Samples:
    """The training samples of a ledger, by position.

    ids: `erased-POSITION` where they are erased;  rows: ledger rows, -1 for samples that were not captured, `[n]`
    erased: samples whose key was destroyed, so that nobody can read their row, `[n]`;  seal: how rows are protected
    """

    ids: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    erased: npt.NDArray[np.bool_]
    seal: RowSeal


@dataclass(frozen=True)
class Sealed:
    """A ledger's manifest, as far as the verifier needs it.

    final_sha256: hash of the trained weights;  files: SHA-256 of each file but the rows
    n_rows, row_bytes, root: of the settled rows, root being the digest over their tags;  codec: what a row is
    keys: the store that rows and ids are encrypted with, None for a ledger in clear
    """

    folder: Path
    run_id: str
    final_sha256: str
    files: Mapping[str, str]
    n_rows: int
    row_bytes: int
    root: str
    codec: Mapping[str, Any]
    keys: KeyStore | None

    def check(self, name: str) -> None:
        """Raise DamagedStore when a file of the ledger is missing or altered."""
        path = self.folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedStore(f"{path} is missing or can't be read: {error}. {REMEDY}") from error
        if found != self.files.get(name):
            raise DamagedStore(f"{path} was altered: its hash isn't the one in the manifest. {REMEDY}")

    def tensors(self, name: str) -> Tensors:
        """A safetensors file of the ledger; raises DamagedStore."""
        self.check(name)
        return read_tensors(self.folder / name)

    def samples(self) -> Samples:
        """What is known of the training samples; raises DamagedStore."""
        self.check(SAMPLES)
        table = pd.read_parquet(self.folder / SAMPLES)
        rows = table["ledger_row"].to_numpy(np.int64)
        if self.keys is None:
            return Samples(tuple(table["sample_id"]), rows, np.zeros(len(rows), bool), Checksum())
        numbers, sealed = table["key"].to_numpy(np.int64), table["ids"].tolist()
        ids, _ = unseal_ids(self.folder / SAMPLES, self.keys, numbers, sealed, self.run_id)
        by_row = numbers[rows >= 0][np.argsort(rows[rows >= 0])]
        return Samples(tuple(ids), rows, ~self.keys.alive(numbers), Encrypted(self.keys, by_row))


def read_sealed(folder: Path, keys: KeyStore | None = None) -> Sealed:
    """Read and check the manifest.

    Raises DamagedStore when it is missing, altered or of another format, KeyStoreMissing or SpecMismatch when `keys`
    isn't the store that the ledger is encrypted with, SettingsError when the ledger was captured
    without settled rows: the identity holds for these only.
    """
    content = _manifest(folder / MANIFEST)
    entries, samples = content["entries"], content["samples_sha256"]
    if SETTLED not in entries or BASE not in content["attachments"]:
        raise SettingsError(
            f"{folder} holds no {SETTLED!r} rows with their base (only {sorted(entries)}), so there is no identity to "
            "verify: add settled to capture.methods (capture.settled.rows other than unsettled) and train again"
        )
    own, tables = entries[SETTLED], {SAMPLES: samples[:64], VISITS: samples[64:]}
    return Sealed(
        folder, content["run_id"], content["final_sha256"], tables | content["attachments"],
        own["rows"], own["row_bytes"], own["root"], own["codec"],
        check_store(folder, content.get("store_id"), keys),
    )  # fmt: skip


def _manifest(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(read_bytes(path))
        content: dict[str, Any] = stored["manifest"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        intact = stored["sha256"] == hashlib.sha256(canonical).hexdigest()
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read: {error!r}. {REMEDY}") from error
    if not intact:
        raise DamagedStore(f"{path} was altered: its own digest differs. {REMEDY}")
    if content["format"] != FORMAT:
        raise DamagedStore(f"{path} has format {content['format']}, this version reads {FORMAT}: train again")
    return content
