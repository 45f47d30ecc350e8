"""What the benchmark compares settled deltas with: sums over the visits of a forget set, straight from the spool.

plain    each visit's share in the final weights, with everything that the optimiser made of it (eq. 1 with H = 0)
raw_lr   summed raw gradients times the step's learning rate: the honest form of the 2024 paper's deltas

Both are *added* to the weights. They are no ledgers: dense rows of all samples would take gigabytes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amnesiac.capture.blocks import Block, matrix_to_parameters, offsets, unpack_factors
from amnesiac.capture.spool import SpoolReader
from amnesiac.ledger import LedgerSpec, SealedLedger
from amnesiac.ledger.visits import StepWeights
from benchmarks.table1_experiment import ROWS

CHUNK_NUMBERS = 8_000_000
"""Numbers of the visits that are decoded at once: 64 MB."""
PUBLISHED = {
    "paper_p10": "subset-one-0.1",
    "paper_p5": "subset-one-0.05",
    "amnesiac_batch": "updates",
    "layerwise_p10": "updates-partial",
}
"""The 2024 paper's methods: name in the rows -> row of benchmarks/table1_experiment.py."""


def learning_rates(spool: SpoolReader) -> StepWeights:
    """lr_t of every step, without momentum, clipping or preconditioner."""
    return StepWeights(np.array([step.lr for step in spool.steps]))


def visits_sum(spool: SpoolReader, weights: StepWeights, forget: Sequence[int]) -> Tensor:
    """Sum over all visits of the samples `forget`, each with its step's weight: float64 `[P]`.

    A sum of outer products is one matrix product, so no visit becomes dense; where weights are vectors, the visits of
    a step are summed first. Its slow twin is `amnesiac.ledger.visits.dense_rows`.
    """
    own = spool.index[np.isin(spool.index[:, 0], np.asarray(forget, np.int64)) & (spool.index[:, 2] >= 0)]
    steps, slots = own[:, 1], own[:, 2]
    total = torch.zeros(spool.layout.numel, dtype=torch.float64)
    if weights.vector is None:
        assert weights.scalar is not None
        size = max(1, CHUNK_NUMBERS // spool.layout.size)
        for start in range(0, len(slots), size):
            part = slice(start, start + size)
            total += _weighted_sum(spool, slots[part], torch.from_numpy(weights.scalar[steps[part]]))
        return total
    for step in np.unique(steps).tolist():
        chosen = slots[steps == step]
        factor = torch.from_numpy(np.array(weights.vector[step], np.float64))
        total += factor * _weighted_sum(spool, chosen, torch.ones(len(chosen), dtype=torch.float64))
    return total


def _weighted_sum(spool: SpoolReader, slots: npt.NDArray[np.int64], scale: Tensor) -> Tensor:
    """Sum of some visits' gradients times `scale` `[n]`, float64 `[P]`."""
    rows = spool.layout.decode(spool.visits[slots]).double()
    places = zip(spool.layout.blocks, offsets(spool.layout.blocks), strict=True)
    return torch.cat([_block_sum(block, rows[:, at], scale) for block, at in places])


def _block_sum(block: Block, rows: Tensor, scale: Tensor) -> Tensor:
    if block.rank is None:
        return scale @ rows
    factors = unpack_factors(block, rows)
    left = factors.left * scale[:, None, None]
    matrix = left.flatten(0, 1).T @ factors.right.flatten(0, 1)
    return matrix_to_parameters(block, matrix[None])[0]


def added(weights: Mapping[str, Tensor], delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """theta + delta, computed in float64; tensors without a delta stay as they are."""
    return {
        name: (value.double() + delta[name]).to(value.dtype) if name in delta else value
        for name, value in weights.items()
    }


def published_ledgers() -> dict[str, LedgerSpec]:
    """The ledgers of the paper's methods, by the name that the benchmark's rows give them."""
    ledgers = {row.key: row.ledger for row in ROWS if row.ledger}
    return {name: ledgers[key] for name, key in PUBLISHED.items()}


def published_delta(ledger: SealedLedger, spec: LedgerSpec, forget: Sequence[int]) -> dict[str, Tensor]:
    """The sum of the rows that a method of the paper adds to the weights, float64 by parameter name."""
    rows = ledger.steps_of(forget) if spec.per == "step" else ledger.sample_rows(forget)
    return ledger.total(spec.name, rows)


def bytes_per_sample(ledger: SealedLedger, names: Sequence[str], samples: int) -> float:
    """Bytes that a method's row arrays take for each training sample."""
    entries = [ledger.manifest.entries[name] for name in names]
    return sum(entry.rows * entry.row_bytes for entry in entries) / samples
