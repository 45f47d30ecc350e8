"""Safetensors as NumPy arrays, and their content hash."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from amnesiac.errors import DamagedStore

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
REMEDY = "Restore it with `dvc checkout`"


def read_bytes(path: Path) -> bytes:
    """A file's content; raises DamagedStore when it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedStore(f"{path} is missing or can't be read: {error}. {REMEDY}") from error


def read_tensors(path: Path) -> Tensors:
    """The tensors of a safetensors file by name; raises DamagedStore when it is missing or malformed."""
    content = read_bytes(path)
    try:
        return dict(load(content))
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks, such as bfloat16
        raise DamagedStore(f"{path} isn't a safetensors file that NumPy can read: {error}. {REMEDY}") from error


def hash_arrays(tensors: Mapping[str, Array]) -> str:
    """SHA-256 over names, dtypes (torch's names), shapes and bytes, in name order: as manifest and versions hold it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}|torch.{value.dtype.name}|{tensors[name].shape}|".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
