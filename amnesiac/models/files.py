"""Weights on disk: safetensors only, never a pickle; written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from amnesiac.durable import write_bytes
from amnesiac.errors import DamagedStore

StateDict = dict[str, torch.Tensor]


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict with string metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_bytes(path, save(tensors, dict(metadata or {})))


def load_weights(path: Path) -> StateDict:
    """Read a state dict; raises DamagedStore when the file is missing or unreadable."""
    return _read(path)[0]


def load_metadata(path: Path) -> dict[str, str]:
    """Read the string metadata of a weights file."""
    return _read(path)[1]


def _read(path: Path) -> tuple[StateDict, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DamagedStore(f"{path} isn't a readable safetensors file: {error}") from error
