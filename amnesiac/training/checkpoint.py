"""A checkpoint a segment: weights and optimiser state as safetensors, the rest as JSON, no pickle; the newest
replaces the last.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, SpecMismatch
from amnesiac.models.files import load_weights, save_weights
from amnesiac.training.spec import EpochRecord

STATE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """run_id: the run it belongs to;  epochs: finished;  spool: file sizes to truncate to."""

    run_id: str
    epochs: int
    history: tuple[EpochRecord, ...]
    spool: dict[str, int] | None


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """A copy of the weights and the optimiser's state, by the names they have in a checkpoint."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | _optimizer_tensors(model, optimizer)
    return {name: value.detach().clone() for name, value in tensors.items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, state: Mapping[str, torch.Tensor]) -> None:
    """Write it durably, with what `state_of` gave; a crash in between leaves the former checkpoint valid."""
    name = f"epoch-{checkpoint.epochs}.safetensors"
    save_weights(folder / name, dict(state))
    write_json(folder / STATE, asdict(checkpoint) | {"tensors": name})
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, run_id: str) -> Checkpoint | None:
    """The last checkpoint, None when there is none; raises SpecMismatch when it belongs to another run."""
    state = _read_state(folder)
    if state is None:
        return None
    if state["run_id"] != run_id:
        raise SpecMismatch(
            f"{folder} holds a checkpoint of run {state['run_id']}, but params.yaml and data describe run {run_id}: "
            "undo the change to resume, or train without --resume"
        )
    history = tuple(EpochRecord(**record) for record in state["history"])
    return Checkpoint(state["run_id"], state["epochs"], history, state["spool"])


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the last checkpoint's weights and optimiser state in place."""
    state = _read_state(folder)
    assert state is not None
    tensors = load_weights(folder / state["tensors"])
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for name, parameter in model.named_parameters():
        own = {k.rpartition("/")[2]: v for k, v in tensors.items() if k.rpartition("/")[0] == f"optimizer.{name}"}
        if own:  # torch keeps the step count on the CPU
            optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in own.items()}


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / STATE
    try:
        state: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        raise DamagedStore(f"{path} can't be read: {error}. Train without --resume") from error
    return state


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Optimiser state by parameter name; every entry of SGD, Adam and AdamW is a tensor or None."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state: Mapping[str, Any] = optimizer.state.get(parameter, {})
        found |= {f"optimizer.{name}/{key}": value for key, value in state.items() if value is not None}
    return found
