"""`dataset.json`: what a prepared data set is, sealed by its own hash so that an alteration is noticed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, SpecMismatch, UnsealedStore
from amnesiac.hashing import hash_json

FILE = "dataset.json"
FORMAT = 2
LIBRARIES = (
    "amnesiac", "cryptography", "numpy", "pandas", "pillow", "pyarrow", "tensorstore", "torch", "torchvision", "zarr",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """The fields of `dataset.json`.

    image_shape   (c, h, w)
    dtype         uint8 or float32 (little-endian on disk)
    splits        samples of each split, in the order in which they lie in the rows
    mean, std     one value a channel, applied after scaling uint8 to 0..1
    content_hash  SHA-256 of everything that training can see, see `content_hash`
    rows_root     digest over the checksums of the image rows
    index_hash    SHA-256 of index.parquet
    store_id      of the key store that images and ids are encrypted with; None: they lie in clear
    """

    source: str
    image_shape: tuple[int, int, int]
    dtype: str
    class_names: tuple[str, ...]
    seed: int
    splits: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    rows_root: str
    index_hash: str
    versions: dict[str, str]
    store_id: str | None = None


def library_versions() -> dict[str, str]:
    """Installed versions of what the stored bytes depend on."""
    return {name: version(name) for name in LIBRARIES}


def write_record(folder: Path, record: Record) -> None:
    """Write `dataset.json`, the last file of a prepared data set."""
    fields = {"format": FORMAT, **asdict(record)}
    write_json(folder / FILE, {**fields, "seal": hash_json(fields)})


def read_record(folder: Path) -> Record:
    """Read `dataset.json`.

    Raises UnsealedStore where it is missing, DamagedStore where it was altered, SpecMismatch for another format.
    """
    fields = _read_json(folder / FILE)
    if fields.get("format", FORMAT) != FORMAT:
        raise SpecMismatch(
            f"{folder}: data set format {fields['format']}, this version reads {FORMAT}: prepare it again"
        )
    seal = fields.pop("seal", None)
    if seal != hash_json(fields):
        raise DamagedStore(f"{folder / FILE}: was altered (its seal doesn't match): restore it, or prepare again")
    del fields["format"]
    return Record(**{name: _tupled(value) for name, value in fields.items()})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnsealedStore(
            f"{path.parent}: isn't a finished data set ({FILE} is missing): run the stage prepare"
        ) from None
    except (OSError, ValueError) as error:
        raise DamagedStore(f"{path}: can't be read ({error}): restore it, or prepare again") from error
    if not isinstance(fields, dict):
        raise DamagedStore(f"{path}: isn't a JSON object: restore it, or prepare again")
    return fields


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
