"""What a report takes from an audit (`amnesiac audit`): the two ensemble figures, and what they were held against."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amnesiac.errors import DamagedStore


@dataclass(frozen=True)
class Attacked:
    """U-LiRA against one kind of models: AUC with its 95 % interval, TPR at 1 % FPR, and the curve."""

    auc: float
    auc_low: float
    auc_high: float
    tpr_at_1_fpr: float
    fpr: tuple[float, ...] = ()
    tpr: tuple[float, ...] = ()


@dataclass(frozen=True)
class AuditFacts:
    """An audit of a training run, by kinds of models ("unlearned", "original", "null": retrained with other seeds).

    models:     a side;  forgotten: how many samples each forgot
    klom:       median over samples;  klom_band: the upper end of what retrained against retrained gives
    """

    run_id: str
    models: int
    forgotten: int
    ulira: Mapping[str, Attacked] = field(default_factory=dict)
    klom: Mapping[str, float] = field(default_factory=dict)
    klom_band: float | None = None


def audit_from_json(found: Mapping[str, Any]) -> AuditFacts:
    """Read the parts that a report shows; anything else in the record is left alone. Raises DamagedStore."""
    try:
        return TypeAdapter(AuditFacts).validate_python(dict(found))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedStore(f"the audit's record can't be read at {place}: run `amnesiac audit` again") from error
