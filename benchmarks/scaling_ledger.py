"""Sealed, encrypted ledgers of any size for `scaling`: rows are drawn, everything else is what the pipeline writes.

A model is LAYERS square maps with biases; a row holds RANK outer products a layer in 8 bits, as settled rows do by
default. Samples are captured all, each with a key of its own in a `LocalKeyStore`.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from amnesiac.capture.blocks import Block
from amnesiac.capture.layers import Factors
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.keys import KeyStore, LocalKeyStore, seal_ids
from amnesiac.ledger.index import write_index
from amnesiac.ledger.manifest import LedgerEntry, Manifest
from amnesiac.ledger.protection import ROWS, Owners, owners, row_place
from amnesiac.ledger.seal import SAMPLES, VISITS
from amnesiac.ledger.settled_codec import QuantisedRows
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.rowstore import RowWriter

RUN, LEDGER, KEYS = "synthetic", "ledger", "keys"
LAYERS, RANK, CLASSES = 3, 2, 10
_NUMBERS = 1 << 22  # drawn at once
SPEC = LedgerSpec("settled", "settled", "rate")


@dataclass
class Phases:
    """Wall-clock and CPU seconds of the parts of writing a ledger."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the block's time to a part's."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu


def blocks(parameters: int) -> tuple[Block, ...]:
    """The layers of a model of about so many parameters."""
    side = max(2, round(math.sqrt(parameters / LAYERS)))
    return tuple(
        Block(f"{k}", (f"{k}.weight", f"{k}.bias"), ((side, side), (side,)), (side, side + 1), RANK)
        for k in range(LAYERS)
    )


def weights_of(layers: tuple[Block, ...]) -> dict[str, torch.Tensor]:
    """The trained weights: what they are doesn't matter."""
    named = [(name, shape) for block in layers for name, shape in zip(block.parameters, block.shapes, strict=True)]
    return {name: torch.full(shape, 0.25) for name, shape in named}


def write_ledger(folder: Path, samples: int, parameters: int) -> Phases:
    """Keys, rows, ids and manifest in `folder`; what each took. Drawing the rows' numbers isn't counted."""
    phases, layers = Phases(), blocks(parameters)
    keys, ids = LocalKeyStore(folder / KEYS, create=True), [f"sample-{k:07d}" for k in range(samples)]
    (folder / LEDGER).mkdir(parents=True)
    with phases.of("keys"):
        own = owners(keys, RUN, ids, 0)
    entry = _write_rows(folder / LEDGER, own, samples, layers, phases)
    with phases.of("ids"):
        index_root = _write_samples(folder / LEDGER, own, ids)
    with phases.of("manifest"):
        _manifest(folder / LEDGER, keys, layers, entry, samples, index_root).write(folder / LEDGER)
    return phases


def _write_rows(folder: Path, own: Owners, samples: int, layers: tuple[Block, ...], phases: Phases) -> LedgerEntry:
    codec, order = QuantisedRows(layers, 8), np.arange(samples)
    writer = RowWriter(row_place(folder, RUN, own, order).array(SPEC), samples, codec.row_bytes)
    step = max(1, _NUMBERS // sum(block.size for block in layers))
    for start in range(0, samples, step):
        parts = _drawn(layers, min(step, samples - start), start)
        with phases.of("rows"):
            writer.append(codec.encode(parts))
    with phases.of("rows"):
        return LedgerEntry(samples, codec.row_bytes, codec.to_json(), writer.close())


def _drawn(layers: tuple[Block, ...], count: int, seed: int) -> list[Factors]:
    """So small that no sum over 10^7 of them leaves the grid."""
    generator, found = torch.Generator().manual_seed(seed), []
    for d_out, d_in in (block.matrix for block in layers if block.matrix):
        left, right = (1e-2 * torch.randn(count, RANK, d, generator=generator) for d in (d_out, d_in))
        found.append(Factors(left, right))
    return found


def _write_samples(folder: Path, own: Owners, ids: list[str]) -> str:
    """What is known of the samples, as sealing writes it; the root of its table of numbers."""
    rows = np.arange(len(ids))
    labels, sealed = rows % CLASSES, seal_ids(own.store, own.samples, ids, ids, RUN)
    columns = {"key": own.samples, "ids": sealed, "label": labels, "visits": np.ones_like(rows), "ledger_row": rows}
    pd.DataFrame(columns).to_parquet(folder / SAMPLES, index=False)
    pd.DataFrame({"sample": rows, "step": rows // 64}).to_parquet(folder / VISITS, index=False)
    return write_index(folder / ROWS, own.samples, rows, labels)


def _manifest(
    folder: Path, keys: KeyStore, layers: tuple[Block, ...], entry: LedgerEntry, samples: int, index_root: str
) -> Manifest:
    weights = weights_of(layers)
    counts = np.bincount(np.arange(samples) % CLASSES, minlength=CLASSES).tolist()
    return Manifest(
        run_id=RUN, run={}, optimizer={},
        parameters=[[name, list(value.shape)] for name, value in weights.items()],
        initial_sha256=hash_tensors(weights), final_sha256=hash_tensors(weights),
        samples_sha256=hash_file(folder / SAMPLES) + hash_file(folder / VISITS), index_root=index_root,
        classes={str(label): count for label, count in enumerate(counts)},
        visits={"samples": samples, "expected": 1, "smallest": 1, "largest": 1, "steps": -(-samples // 64)},
        entries={SPEC.name: entry}, residual={}, attachments={}, store_id=keys.store_id,
    )  # fmt: skip
