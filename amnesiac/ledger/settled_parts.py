"""Settling a run's samples span by span in other processes, whose rows come back to the one that seals.

What such a process needs beside the spool lies in the spool's folder, which goes when the ledger is sealed. It gets the
numbers of rows, no ids and no keys, and sends rows back in clear: the one that seals encrypts and writes them in order.
A span is made of the same chunks as in one process, so its rows are the same, bit for bit.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.curvature import Choice, Kappa, from_bytes
from amnesiac.durable import write_bytes, write_json
from amnesiac.ledger.codecs import SampleRows
from amnesiac.ledger.reading import codec_of
from amnesiac.ledger.settled_codec import MaskedRows, QuantisedRows
from amnesiac.ledger.settled_rows import SettledArrays, SettledPart, SettledWriting, mask_bytes, settle_part
from amnesiac.ledger.settling import Settling, Weights
from amnesiac.ledger.visits import CHUNK_BYTES, StepWeights, VisitTable

Spread = Callable[[Path, Sequence[range]], Iterable[SettledPart]]
_FEWEST_SPANS = 16
_TABLE, _FACTS, _CURVATURE = "settling-table.safetensors", "settling.json", "settling-curvature.safetensors"


def settle_elsewhere(
    spread: Spread, writing: SettledWriting, arrays: SettledArrays, slices: Sequence[slice]
) -> Iterator[SettledPart]:
    """The parts of all samples in order, as `spread` has them made.

    spread: calls `settle_span` somewhere for each range of rows; gets the spool's folder
    """
    _keep(writing, arrays, slices)
    rows, row_bytes = slices[0].stop - slices[0].start, sum(codec.row_bytes for codec in arrays.codecs)
    most = max(1, min(CHUNK_BYTES // (rows * row_bytes), -(-len(slices) // _FEWEST_SPANS)))
    groups = iter(slices)
    spans = [range(group[0].start, group[-1].stop) for group in iter(lambda: list(islice(groups, most)), [])]
    yield from spread(writing.spool.folder, spans)


def settle_span(spool_folder: Path, span: range) -> SettledPart:
    """Settle the samples with these numbers, as the process that seals would have."""
    facts = json.loads((spool_folder / _FACTS).read_text())
    before = torch.get_num_threads()
    torch.set_num_threads(facts["threads"])  # a sum's order can depend on it
    try:
        with read_spool(spool_folder) as spool:
            writing, arrays = _kept(spool, facts)
            n = len(writing.table.samples)
            starts = range(span.start, min(span.stop, n), facts["chunk"])
            parts = [settle_part(writing, arrays, np.arange(start, min(start + facts["chunk"], n))) for start in starts]
            return _joined(parts)
    finally:
        torch.set_num_threads(before)


def _joined(parts: Sequence[SettledPart]) -> SettledPart:
    """Sums of rows are exact, in whatever order they are taken."""
    by_array = list(zip(*(part.encoded for part in parts), strict=True))
    totals, bounds = (list(zip(*sums, strict=True)) for sums in ((p.totals for p in parts), (p.bounds for p in parts)))
    return SettledPart(
        tuple(np.concatenate(encoded) for encoded in by_array),
        tuple(np.sum(np.stack(own), 0) for own in totals),
        tuple(float(sum(own)) for own in bounds),
    )


def _keep(writing: SettledWriting, arrays: SettledArrays, slices: Sequence[slice]) -> None:
    folder, settling = writing.spool.folder, writing.settling
    assert writing.steps.scalar is not None
    table = {"samples": writing.table.samples, "slots": writing.table.slots, "steps": writing.table.steps}
    numbers = table | {"classes": writing.classes, "weights": writing.steps.scalar}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(own)) for name, own in numbers.items()}
    write_bytes(folder / _TABLE, save(tensors))
    write_bytes(folder / _CURVATURE, settling.curvature.to_bytes(exact=True))
    for codec in arrays.codecs:
        if isinstance(codec, MaskedRows):
            write_bytes(folder / codec.file, mask_bytes(codec))
    facts = {"few": asdict(settling.few), "whole": asdict(settling.whole), "path": settling.path}
    facts |= {"chunk": slices[0].stop - slices[0].start, "threads": torch.get_num_threads(), "wide": writing.wide}
    facts |= {"by_class": arrays.by_class, "codecs": [codec.to_json() for codec in arrays.codecs]}
    write_json(folder / _FACTS, facts)


def _kept(spool: SpoolReader, facts: dict[str, Any]) -> tuple[SettledWriting, SettledArrays]:
    path = spool.folder / _CURVATURE
    weights = _weights(path, path.stat().st_mtime_ns, spool.folder / _FACTS)
    numbers = {name: own.numpy() for name, own in load_file(spool.folder / _TABLE).items()}
    table = VisitTable(numbers["samples"], numbers["slots"], numbers["steps"])
    steps, classes = StepWeights(numbers["weights"]), numbers["classes"]
    writing = SettledWriting(spool, table, steps, weights.settling, classes, weights, facts["wide"])
    codecs = [codec_of(entry, lambda name: (spool.folder / name).read_bytes()) for entry in facts["codecs"]]
    settled = tuple(codec for codec in codecs if isinstance(codec, QuantisedRows | MaskedRows | SampleRows))
    return writing, SettledArrays(tuple(facts["by_class"]), settled)


@lru_cache(maxsize=1)
def _weights(curvature: Path, written: int, facts: Path) -> Weights:
    """What all spans of a run share, read and computed once in a process; `written` tells one run's file from another.

    Nothing of a single sample is in it.
    """
    found = json.loads(facts.read_text())
    few, whole = _choice(found["few"]), _choice(found["whole"])
    return Weights(Settling(from_bytes(curvature.read_bytes()), few, whole, found["path"]))


def _choice(found: dict[str, Any]) -> Choice:
    return Choice(Kappa(**found["kappa"]), found["damage"], found["norm"])
