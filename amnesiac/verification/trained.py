"""The trained model that a ledger was captured for: its weights, or what is left of them once they are withdrawn."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amnesiac.errors import DamagedStore
from amnesiac.verification.tensors import REMEDY, Array, Tensors, hash_arrays, read_bytes, read_tensors


@dataclass(frozen=True)
class Trained:
    """weights_sha256: content hash;  tensors: the weights; of withdrawn ones the buffers, and zeros for parameters."""

    weights_sha256: str
    tensors: Tensors


def read_trained(path: Path) -> Trained:
    """Read a weights file, or the `withdrawn.json` that took its place; raises DamagedStore."""
    if path.suffix != ".json":
        tensors = read_tensors(path)
        return Trained(hash_arrays(tensors), tensors)
    buffers = path.with_name("buffers.safetensors")
    try:
        said = json.loads(read_bytes(path))
        zeros: dict[str, Array] = {name: np.zeros(shape, kind) for name, (kind, shape) in said["tensors"].items()}
        digest = str(said["weights_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read: {error!r}. {REMEDY}") from error
    return Trained(digest, zeros | (dict(read_tensors(buffers)) if buffers.exists() else {}))
