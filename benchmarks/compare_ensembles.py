"""From the members' records to rows: what only an ensemble can tell is computed once a case and method."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amnesiac.evaluation import Triplet, klom, tow, ulira
from amnesiac.evaluation.attacks import relearn_ratio
from amnesiac.unlearning.peers import PEERS
from benchmarks.forgetting_run import Row

REFERENCE, RETRAINED = "retrained_other_seed", "retrained"
BOOTSTRAP = 200
LEAST = 4
"""Models a side below which there are no figures of ensembles."""
USES = {
    "original": (), "plain": ("ledger",), "raw_lr": ("ledger",), "settled": ("ledger",),
    RETRAINED: PEERS[RETRAINED].uses, REFERENCE: PEERS[RETRAINED].uses,
}  # fmt: skip
Records = Sequence[Mapping[str, Any]]


def uses_of(method: str) -> tuple[str, ...]:
    """What a method reads when something is forgotten, beside the original weights."""
    return USES[method] if method in USES else PEERS[method].uses


def uses_retain_data(method: str) -> bool:
    """Whether that includes samples that stay."""
    return bool({"retained data", "the whole run"} & set(uses_of(method)))


def rows_of(records: Records, reported: Sequence[int]) -> list[Row]:
    """The rows of the reported seeds, with the figures of the whole ensemble, in the records' order."""
    ensembles = {place: ensemble_figures(records, *place) for place in places_of(records)}
    references = {(r["case"], r["seed"]): r for r in records if r["method"] == RETRAINED}
    return [
        _row(record, references[record["case"], record["seed"]]) | ensembles[record["case"], record["method"]]
        for record in records
        if record["seed"] in reported
    ]


def places_of(records: Records) -> list[tuple[str, str]]:
    """Cases and methods, in the records' order."""
    return list(dict.fromkeys((record["case"], record["method"]) for record in records))


def _row(record: Mapping[str, Any], retrained: Mapping[str, Any]) -> Row:
    """A record without its margins, with what is measured against the retraining of the same seed."""
    method = record["method"]
    kept = {name: value for name, value in record.items() if name not in ("margins", "relearn_steps")}
    steps, own = retrained["relearn_steps"], record["relearn_steps"]
    ratio = None if steps is None or own is None else relearn_ratio(own, steps)
    facts = {"uses": list(uses_of(method)), "uses_retain_data": uses_retain_data(method)}
    facts["relearn_ratio"] = ratio if ratio is not None and math.isfinite(ratio) else None
    return {**kept, "tow": tow(_triplet(record), _triplet(retrained)), **facts}


def _triplet(record: Mapping[str, Any]) -> Triplet:
    return Triplet(*(record[f"{name}_accuracy"] for name in ("forget", "retain", "test")))


def ensemble_figures(records: Records, case: str, method: str) -> dict[str, Any]:
    """KLoM and U-LiRA of a method's models against models retrained with other seeds (of those, against the others).

    None where there are too few models, or one of them diverged.
    """
    own, reference = margins_of(records, case, method), margins_of(records, case, REFERENCE)
    if method == REFERENCE:
        reference = margins_of(records, case, RETRAINED)
    names = ("klom_forget", "klom_forget_p95", "ulira_auc", "ulira_auc_low", "ulira_auc_high", "ulira_tpr_at_1_fpr")
    if len(own) < LEAST or not bool(own.isfinite().all()):
        return dict.fromkeys(names) | {"members": len(own)}
    values, attack = klom(own, reference), ulira(own, reference, bootstrap=BOOTSTRAP)
    figures = (float(values.median()), float(values.quantile(0.95)))
    attacked = (attack.auc, attack.auc_low, attack.auc_high, attack.tpr_at_1_fpr)
    return dict(zip(names, (*figures, *attacked), strict=True)) | {"members": len(own)}


def margins_of(records: Records, case: str, method: str) -> Tensor:
    """`[members, n]` on the forget set."""
    own = [record["margins"] for record in records if (record["case"], record["method"]) == (case, method)]
    return torch.tensor(own, dtype=torch.float64)
