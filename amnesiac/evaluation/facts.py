"""What a report says beside the metrics: frozen records of counts and opaque ids."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amnesiac.errors import DamagedStore


@dataclass(frozen=True)
class Asked:
    """A deletion request: its opaque id, what kind it is of, how many values it named, when it came and is due, and the
    number of its signed receipt (None: it has none yet).
    """

    request_id: str
    kind: str
    values: int
    received: str
    due: str
    receipt: int | None = None


@dataclass(frozen=True)
class BatchFacts:
    """The deletion batch that a report is about.

    asked:   its requests;  states: when it reached which, ISO-8601 UTC
    erased:  counts by what was erased (keys, files, bytes, objects of DVC), empty until it was
    scan:    counts of the search for residues (files, bytes, things, hits, gaps), empty until it was made
    """

    number: int
    asked: tuple[Asked, ...]
    states: Mapping[str, str]
    erased: Mapping[str, int] = field(default_factory=dict)
    scan: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """How far subtraction has led from the trained weights, and what was predicted of the result before publication.

    drift, budget:  ||theta' - theta_T|| relative to the training's path, of all batches so far, and its limit
    predicted_kl:   nats;  share: of the training samples that are deleted by now;  verdict: by the settings' limits
    """

    drift: float
    budget: float
    predicted_kl: float
    share: float
    verdict: str


@dataclass(frozen=True)
class ReportFacts:
    """What the report says beside the metrics: counts only, never an id."""

    requests: int
    subjects: int
    samples: int
    """Training samples that were forgotten."""
    method: str
    data: str
    model: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each step; ratios are to the step called "retrain"."""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """What lies on disk for it, by name."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings worth stating, by name."""
    version: str = ""
    """Which published version of the model this is about, if it has a name."""
    published: str = "unlearned"
    """Which model is published, or would be: "unlearned", "repaired" or "retrained"."""
    not_held: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By request id, keyed hashes of what it named and the data doesn't hold."""
    drift: Drift | None = None
    batch: BatchFacts | None = None


def facts_to_json(facts: ReportFacts) -> dict[str, Any]:
    """As JSON can hold it; `facts_from_json` reads it."""
    return asdict(facts)


def facts_from_json(found: Mapping[str, Any]) -> ReportFacts:
    """What `facts_to_json` wrote; raises DamagedStore naming the field."""
    try:
        return TypeAdapter(ReportFacts).validate_python(dict(found))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedStore(
            f"the report's record can't be read at {place or 'its top'}: restore pipeline_data/reports from a backup, "
            "or delete the batch's folder there"
        ) from error
