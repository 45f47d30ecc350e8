"""Weights on disk: safetensors only, never a pickle; written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from amnesiac.durable import write_bytes
from amnesiac.errors import DamagedStore

StateDict = dict[str, torch.Tensor]


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict with string metadata; the same content is the same bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_bytes(path, _in_order(save(tensors, dict(metadata or {}))))


def load_weights(path: Path) -> StateDict:
    """Read a state dict; raises DamagedStore when the file is missing or unreadable."""
    return _read(path)[0]


def load_metadata(path: Path) -> dict[str, str]:
    """Read the string metadata of a weights file."""
    return _read(path)[1]


def _in_order(content: bytes) -> bytes:
    """The file with its metadata sorted by name: safetensors writes them in an order that differs from call to call."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the format aligns the tensors
    return len(text).to_bytes(8, "little") + text + content[end:]


def _read(path: Path) -> tuple[StateDict, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DamagedStore(f"{path} isn't a readable safetensors file: {error}") from error
