"""Staging: what a version holds is computed from where the last one ended, from the rows of the new requests alone.

Where that can't be done (another run, another method, an older state is wanted) it is computed from the trained model,
request group by request group as they were published then, which gives the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from amnesiac.durable import whole_folder, write_json
from amnesiac.errors import RequestError
from amnesiac.hashing import hash_tensors
from amnesiac.ledger import SealedLedger
from amnesiac.models import StateDict, save_weights
from amnesiac.publication.store import STAGED
from amnesiac.publication.version import CORRECTION, FORGOTTEN, MASTER, MODEL, Version, write_positions
from amnesiac.requests import ForgetSet, Pointer
from amnesiac.settings import UnlearningSettings
from amnesiac.unlearning import unlearn


@dataclass(frozen=True)
class Subtraction:
    """Where deletions have come so far.

    groups:      how many requests were covered after each batch, ascending
    positions:   sorted training positions that are forgotten
    master:      weights before rounding, None for those of the trained model;  correction: summed over batches
    rows:        ledger rows that were subtracted;  row_bytes: how long one is;  not_trained: samples of other splits
    read, seconds: rows read by this process, and how long that took
    """

    groups: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    master: StateDict | None = None
    correction: StateDict | None = None
    rows: int = 0
    row_bytes: int = 0
    not_trained: int = 0
    read: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """How many requests are covered."""
        return self.groups[-1] if self.groups else 0


@dataclass(frozen=True)
class Origin:
    """What a version is made from: the run's ids and hashes, the method and its settings."""

    run_id: str
    base_sha256: str
    ledger_roots: dict[str, str]
    settings: UnlearningSettings
    pointer: Pointer
    requests: tuple[str, ...]
    subjects: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """As JSON, for the version's record."""
        return {
            "run_id": self.run_id,
            "base_sha256": self.base_sha256,
            "ledger_roots": self.ledger_roots,
            "method": self.settings.method,
            "settings": self.settings.model_dump(mode="json"),
            "pointer": asdict(self.pointer),
            "requests": list(self.requests),
            "subjects": self.subjects,
            **self.more,
        }


def origin(ledger: SealedLedger, settings: UnlearningSettings, pointer: Pointer, requests: Sequence[str]) -> Origin:
    """What the next version of a ledger's run is made from."""
    manifest = ledger.manifest
    roots = {name: entry.root for name, entry in manifest.entries.items()}
    return Origin(manifest.run_id, manifest.final_sha256, roots, settings, pointer, tuple(requests))


def continues(version: Version, wanted: Origin) -> bool:
    """Whether `wanted` can go on from a version: same run and method, and all that it covers is still covered."""
    facts, settings = version.facts, wanted.settings
    same = (facts["run_id"], facts["base_sha256"], facts["method"], facts["settings"]["scale"])
    covered = tuple(facts["requests"])
    return (
        same == (wanted.run_id, wanted.base_sha256, settings.method, settings.scale)
        and wanted.requests[: len(covered)] == covered
    )


def state_of(version: Version) -> Subtraction:
    """Where a version's deletions have come to; raises DamagedStore."""
    facts = version.facts
    return Subtraction(
        tuple(facts["groups"]), version.positions(), version.master(), version.correction(), facts["rows"],
        facts["bytes_per_row"], facts["not_trained"],
    )  # fmt: skip


def subtract(
    settings: UnlearningSettings, ledger: SealedLedger, weights: Mapping[str, torch.Tensor], start: Subtraction,
    forget_sets: Sequence[ForgetSet],
) -> Subtraction:  # fmt: skip
    """Carry out groups of requests one after another; `weights` are the trained model's.

    Only rows of samples that `start` hasn't forgotten are read. Raises what `unlearn` raises, and RequestError when
    nothing of the training split would be left.
    """
    now = start
    for forget in forget_sets:
        now = _with_group(settings, ledger, weights, now, forget)
    if now.positions and len(now.positions) >= len(ledger.samples):
        raise RequestError(
            "with what is forgotten already these requests name every training sample: delete the model instead"
        )
    if now.master is not None:
        return now
    untouched = unlearn(settings, ledger, weights, ())
    return replace(now, master=untouched.master)


def rounded(master: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> StateDict:
    """Master weights in the model's own precision."""
    return {name: value.to(like[name].dtype, copy=True) for name, value in master.items()}


def write_candidate(
    folder: Path, result: Subtraction, files: Mapping[str, StateDict | None], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a candidate, whole or not at all, over the one before; what version.json says of it.

    files: model.safetensors (the subtraction's result) and what else may be published;  facts: of `Origin`, and which
    of the files is to be published. Nothing in it differs between runs that end in the same weights.
    """
    said = dict(facts) | {
        "groups": list(result.groups),
        "samples": len(result.positions),
        "not_trained": result.not_trained,
        "rows": result.rows,
        "bytes_per_row": result.row_bytes,
        "weights_sha256": _hash(files[MODEL]),
        "correction_sha256": _hash(result.correction),
    }
    held = dict(files) | {MASTER: result.master, CORRECTION: result.correction}
    with whole_folder(folder) as aside:
        for name, tensors in held.items():
            if tensors is not None:
                save_weights(aside / name, tensors)
        write_positions(aside / FORGOTTEN, result.positions)
        write_json(aside / STAGED, said)
    return said


def _with_group(
    settings: UnlearningSettings, ledger: SealedLedger, weights: Mapping[str, torch.Tensor], before: Subtraction,
    forget: ForgetSet,
) -> Subtraction:  # fmt: skip
    done = unlearn(settings, ledger, weights, forget.rows, before=before.positions, master=before.master)
    return Subtraction(
        (*before.groups, before.requests + len(forget.by_request)),
        tuple(sorted({*before.positions, *forget.rows})),
        done.master,
        _sum(before.correction, done.correction),
        before.rows + done.rows,
        done.row_bytes or before.row_bytes,
        before.not_trained + forget.not_trained,
        before.read + done.rows,
        before.seconds + done.seconds,
    )


def _sum(one: StateDict | None, two: StateDict | None) -> StateDict | None:
    """Both corrections together: float64 multiples of 2^-40, so the order doesn't matter."""
    if one is None or two is None:
        return one if two is None else two
    return {name: one[name] + two[name] if name in one and name in two else (one | two)[name] for name in one | two}


def _hash(tensors: StateDict | None) -> str | None:
    return hash_tensors(tensors) if tensors is not None else None
