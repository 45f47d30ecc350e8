"""The open ledger: what training appends to, before `seal` turns it into rows.

Append-only files, so that a killed run is resumed by truncating them to the sizes of its last checkpoint:

    layout.json          blocks, dtype, attribution rule, parameter names
    visits.bin           one encoded row a captured visit (blocks.py)
    visits.idx           int64 [visits, 3]: sample row, step, position in visits.bin or -1 (not captured)
    steps.bin            float64 [steps, 3]: learning rate, clipping factor, the optimiser's step count
    preconditioners.bin  float32 [steps, P], Adam only
    updates.bin          float32 [steps, U], whole-batch updates, only if a method needs them

Where several processes train together, each has such a folder of its own in this one (joined.py).

It holds contributions in clear and is removed when the ledger is sealed.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.attribution import Rule, Step
from amnesiac.capture.blocks import Block, offsets
from amnesiac.capture.copies import PinnedCopies
from amnesiac.capture.joined import JoinedRows, joined_index, process_folders
from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore, UnsealedStore

Index = npt.NDArray[np.int64]
NUMPY_DTYPE = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Layout:
    """How rows of a spool are read.

    parameters: (name, shape) of the trainable parameters in the model's order: the coordinates of a dense row
    updates:    fraction of the coordinates kept of whole-batch updates, by ledger name
    """

    blocks: tuple[Block, ...]
    dtype: str
    rule: Rule
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    updates: Mapping[str, float]

    @property
    def size(self) -> int:
        """Numbers in a visit's row."""
        return sum(block.size for block in self.blocks)

    @property
    def numel(self) -> int:
        """P, the number of trainable parameters."""
        return sum(torch.Size(shape).numel() for _, shape in self.parameters)

    @property
    def row_bytes(self) -> int:
        """Bytes of an encoded visit."""
        item = np.dtype(NUMPY_DTYPE[self.dtype]).itemsize
        return item * self.size + (4 * len(self.pieces()) if self.dtype == "float16" else 0)

    def pieces(self) -> list[slice]:
        """Parts of a row that share one scale when stored as float16: left, right, or a dense block."""
        cuts: list[slice] = []
        for block, place in zip(self.blocks, offsets(self.blocks), strict=True):
            if block.rank is None or block.matrix is None:
                cuts.append(place)
            else:
                middle = place.start + block.rank * block.matrix[0]
                cuts += [slice(place.start, middle), slice(middle, place.stop)]
        return cuts

    def encode(self, rows: Tensor) -> Tensor:
        """Rows `[n, size]` to bytes `[n, row_bytes]`, where the rows lie."""
        if self.dtype != "float16":
            return rows.to(getattr(torch, self.dtype)).contiguous().view(torch.uint8)
        scales = torch.stack([rows[:, p].abs().amax(1) for p in self.pieces()], 1).float()
        scaled = torch.cat([rows[:, p] / safe(scales[:, k : k + 1]) for k, p in enumerate(self.pieces())], 1)
        return torch.cat([scales.view(torch.uint8), scaled.half().view(torch.uint8)], 1)

    def decode(self, stored: npt.NDArray[np.uint8]) -> Tensor:
        """The inverse of `encode`, as float32 (float64 where stored so)."""
        stored = np.ascontiguousarray(stored)
        if self.dtype != "float16":
            return torch.from_numpy(stored.view(NUMPY_DTYPE[self.dtype]))
        cut = 4 * len(self.pieces())
        scales = torch.from_numpy(stored[:, :cut].copy().view(np.float32))
        rows = torch.from_numpy(stored[:, cut:].copy().view(np.float16)).float()
        for k, piece in enumerate(self.pieces()):
            rows[:, piece] *= safe(scales[:, k : k + 1])
        return rows

    def to_json(self) -> dict[str, Any]:
        """For layout.json."""
        return {
            "blocks": [block.to_json() for block in self.blocks],
            "dtype": self.dtype,
            "rule": asdict(self.rule),
            "parameters": [[name, list(shape)] for name, shape in self.parameters],
            "updates": dict(self.updates),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Layout":
        """The inverse of `to_json`."""
        return Layout(
            tuple(Block.from_json(block) for block in value["blocks"]),
            value["dtype"],
            Rule(**value["rule"]),
            tuple((name, tuple(shape)) for name, shape in value["parameters"]),
            dict(value["updates"]),
        )


def safe(scale: Tensor) -> Tensor:
    """A divisor that is never zero."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class Spool:
    """Appends visits and steps; see the module's description for the files."""

    FILES = ("visits.bin", "visits.idx", "steps.bin", "preconditioners.bin", "updates.bin")

    def __init__(self, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        """Start afresh, or go on at the file `sizes` that `sync` returned."""
        self.folder, self.layout, self._copies = folder, None, PinnedCopies()
        if sizes is None:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {name: self._open(name, (sizes or {}).get(name, 0)) for name in self.FILES}
        self.visits, self.steps = self._size("visits.bin"), self._size("steps.bin") // 24
        if sizes is not None and sizes["visits.idx"]:
            self.set_layout(read_layout(folder))

    layout: Layout | None

    def set_layout(self, layout: Layout) -> None:
        """Fix the row layout, known after the first mini-batch."""
        if self.layout is None:
            write_json(self.folder / "layout.json", layout.to_json())
            self.layout, self.visits = layout, self._size("visits.bin") // max(layout.row_bytes, 1)

    def append_visits(self, samples: Index, captured: npt.NDArray[np.bool_], steps: Index, rows: Tensor) -> None:
        """Visits: their samples `[n]`, which are captured `[n]`, their steps `[n]`, rows `[sum(captured), size]`."""
        assert self.layout is not None
        slots = np.full(len(captured), -1, np.int64)
        slots[captured] = np.arange(self.visits, self.visits + len(rows))
        self._files["visits.idx"].write(np.stack([samples, steps, slots], 1).tobytes())
        self._files["visits.bin"].write(self._copies.to_host(self.layout.encode(rows)).numpy().data)
        self.visits += len(rows)

    def drop_visits(self, step: int) -> None:
        """Take back the visits of a step that wasn't closed: those at the end of the files."""
        self._files["visits.idx"].flush()
        index = _map(self.folder / "visits.idx", np.int64, 3, "r")
        kept = int(np.searchsorted(index[:, 1], step))  # steps only grow
        if self.layout is None or kept == len(index):
            return
        self.visits -= int((index[kept:, 2] >= 0).sum())
        for name, size in (("visits.idx", 24 * kept), ("visits.bin", self.visits * self.layout.row_bytes)):
            self._files[name].flush()
            os.truncate(self.folder / name, size)

    def append_step(self, step: Step, preconditioner: Tensor | None, updates: Sequence[Tensor]) -> None:
        """Close an optimiser step."""
        self._files["steps.bin"].write(np.array([step.lr, step.clip, step.count], np.float64).tobytes())
        if preconditioner is not None:
            self._files["preconditioners.bin"].write(self._copies.to_host(preconditioner.float()).numpy().data)
        for update in updates:
            self._files["updates.bin"].write(self._copies.to_host(update.float()).numpy().data)
        self.steps += 1

    def sync(self) -> dict[str, int]:
        """Make everything durable; the file sizes to go on from."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: self._size(name) for name in self.FILES}

    def close(self) -> None:
        """Flush and close the files."""
        for file in self._files.values():
            file.close()

    def _open(self, name: str, size: int) -> IO[bytes]:
        path = self.folder / name
        path.touch(mode=0o600)
        if path.stat().st_size < size:
            raise UnsealedStore(f"{path} is shorter than its checkpoint says: start the run again without --resume")
        os.truncate(path, size)
        return path.open("ab", buffering=1 << 20)

    def _size(self, name: str) -> int:
        self._files[name].flush()
        return (self.folder / name).stat().st_size


@dataclass(frozen=True)
class SpoolReader:
    """A finished spool, memory-mapped."""

    folder: Path
    layout: Layout
    index: Index
    steps: tuple[Step, ...]
    visits: npt.NDArray[np.uint8] | JoinedRows
    preconditioners: npt.NDArray[np.float32] | None
    updates: npt.NDArray[np.float32]


@contextmanager
def read_spool(folder: Path) -> Iterator[SpoolReader]:
    """Open a closed spool for sealing; that of several processes as one. Raises UnsealedStore, DamagedStore."""
    folders = process_folders(folder) or [folder]
    layout, steps = _common_layout(folders), _common_steps(folders)
    preconditioners = None
    if layout.rule.preconditioned:
        preconditioners = _map(folders[0] / "preconditioners.bin", np.float32, layout.numel, "r")
    indices = [np.fromfile(own / "visits.idx", np.int64).reshape(-1, 3) for own in folders]
    rows = JoinedRows(tuple(_map(own / "visits.bin", np.uint8, layout.row_bytes, "r") for own in folders))
    yield SpoolReader(
        folder,
        layout,
        indices[0] if len(folders) == 1 else joined_index(indices, rows),
        tuple(Step(float(lr), float(clip), int(count)) for lr, clip, count in steps),
        rows.parts[0] if len(folders) == 1 else rows,
        preconditioners,
        _map_flat(folders[0] / "updates.bin", len(steps)),
    )


def _common_layout(folders: Sequence[Path]) -> Layout:
    """A process that never had a sample has no layout."""
    found = [read_layout(own) for own in folders if len(folders) == 1 or (own / "layout.json").exists()]
    if not found:
        raise UnsealedStore(f"{folders[0].parent} holds no captured mini-batch")
    if any(layout.to_json() != found[0].to_json() for layout in found):
        raise DamagedStore(f"the spools in {folders[0].parent} have rows of different kinds: train again")
    return found[0]


def _common_steps(folders: Sequence[Path]) -> npt.NDArray[np.float64]:
    """All processes took the same steps."""
    found = [np.fromfile(own / "steps.bin", np.float64).reshape(-1, 3) for own in folders]
    if not all(np.array_equal(steps, found[0], equal_nan=True) for steps in found):
        raise DamagedStore(f"the spools in {folders[0].parent} have taken different steps: train again")
    return found[0]


def read_layout(folder: Path) -> Layout:
    """The row layout of a spool; raises UnsealedStore when no mini-batch was captured."""
    path = folder / "layout.json"
    if not path.exists():
        raise UnsealedStore(f"{folder} holds no captured mini-batch")
    return Layout.from_json(json.loads(path.read_text()))


def _map(path: Path, dtype: Any, width: int, mode: Any) -> Any:
    if path.stat().st_size == 0:
        return np.empty((0, width), dtype)
    return np.memmap(path, dtype, mode).reshape(-1, width)


def _map_flat(path: Path, steps: int) -> Any:
    if path.stat().st_size == 0:
        return np.empty((steps, 0), np.float32)
    return np.memmap(path, np.float32, "r").reshape(steps, -1)
