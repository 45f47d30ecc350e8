"""What a report takes from an audit (`amnesiac audit`): attacks on ensembles, and what they were held against."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amnesiac.errors import DamagedStore

MEDIAN = "0.5"


@dataclass(frozen=True)
class Attacked:
    """U-LiRA against one kind of models: AUC with its 95 % interval, TPR at 1 % FPR, the curve; and their KLoM's median
    over samples.
    """

    auc: float
    auc_low: float
    auc_high: float
    tpr_at_1_fpr: float
    klom: float
    fpr: tuple[float, ...] = ()
    tpr: tuple[float, ...] = ()


@dataclass(frozen=True)
class AuditSet:
    """One forget set of an audit.

    klom_band: the upper end of the null band around the median;  attacked: by kind of models ("original", a method ...)
    """

    samples: int
    klom_band: float
    attacked: Mapping[str, Attacked] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditFacts:
    """An audit of a training run.

    run:       its id;  method: that was audited;  models: a side
    sound:     whether the audit passes its own check, which `check` says in words;  sentence: its verdict
    """

    run: str
    method: str
    models: int
    sentence: str
    check: str
    sound: bool
    sets: Mapping[str, AuditSet] = field(default_factory=dict)


def audit_of(found: Mapping[str, Any]) -> AuditFacts:
    """The parts of audit.json that a report shows; raises DamagedStore naming what is missing."""
    try:
        verdict = found["verdict"]
        sets = {name: _set(figures) for name, figures in found["sets"].items()}
        said = {name: verdict[name] for name in ("sentence", "check", "sound")}
        return AuditFacts(found["run"], found["method"], found["models"], **said, sets=sets)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedStore(f"the audit's record lacks {error}: run `amnesiac audit` again") from error


def audit_from_json(found: Mapping[str, Any]) -> AuditFacts:
    """An `AuditFacts` as a report's record holds it; raises DamagedStore naming the field."""
    try:
        return TypeAdapter(AuditFacts).validate_python(dict(found))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedStore(f"the report's audit can't be read at {place}: restore it from a backup") from error


def _set(figures: Mapping[str, Any]) -> AuditSet:
    attacked = {name: _attacked(own) for name, own in figures["models"].items() if "ulira" in own}
    return AuditSet(figures["samples"], figures["null_band"]["high"][MEDIAN], attacked)


def _attacked(own: Mapping[str, Any]) -> Attacked:
    found = own["ulira"]
    return Attacked(
        auc=found["auc"],
        auc_low=found["auc_low"],
        auc_high=found["auc_high"],
        tpr_at_1_fpr=found["tpr_at_1_fpr"],
        klom=own["klom_forget"][MEDIAN],
        fpr=tuple(found["curve"]["fpr"]),
        tpr=tuple(found["curve"]["tpr"]),
    )
