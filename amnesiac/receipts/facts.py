"""The facts that a receipt states: frozen, checked before they are signed, with ids only as keyed hashes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from amnesiac.errors import ReceiptError

CLAIMED = "The direct contribution of the samples named was removed from the published weights, exactly."
NOT_CLAIMED = (
    "Indirect influence (what the samples changed in later training steps) is bounded only by the metrics below. "
    "This is not certified unlearning, and nothing is said about copies outside of the places listed."
)


def _moment(value: str) -> str:
    """Refuse what isn't ISO-8601 UTC to the second, e.g. 2026-11-23T09:54:00Z."""
    datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 (the Z is literal)
    return value


Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a file, or HMAC-SHA-256 of an id: 64 hex digits, so that no id can stand here by mistake."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Count = Annotated[int, Field(ge=0)]
Moment = Annotated[str, StringConstraints(max_length=20), AfterValidator(_moment)]
Number = Annotated[float, Field(allow_inf_nan=False)]

_CONFIG = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Request:
    """The deletion request.

    received   when it came in; `deadline` is one month later
    ids        HMACs of what it named that the data set holds; `not_held`: of what it doesn't
    """

    __pydantic_config__ = _CONFIG
    id: Name
    received: Moment
    deadline: Moment
    ids: tuple[Hash, ...] = ()
    not_held: tuple[Hash, ...] = ()


@dataclass(frozen=True)
class Algorithm:
    """What computed the new weights, and what is said about the result."""

    __pydantic_config__ = _CONFIG
    name: Text
    version: Text
    claimed: Text = CLAIMED
    not_claimed: Text = NOT_CLAIMED


@dataclass(frozen=True)
class Model:
    """SHA-256 of the published weights before and after the batch."""

    __pydantic_config__ = _CONFIG
    before: Hash
    after: Hash


@dataclass(frozen=True)
class Purged:
    """What was removed where; `bytes` is None where a remote tells only the number."""

    __pydantic_config__ = _CONFIG
    place: Text
    what: Text
    count: Count
    bytes: Count | None = None


@dataclass(frozen=True)
class Scan:
    """The search for residues: places, how much, for how many things; hits, and what couldn't be read (`gaps`).

    kinds   how many things of each kind (ids, image rows, ledger rows, keys); 0: not looked for
    """

    __pydantic_config__ = _CONFIG
    places: tuple[Text, ...]
    files: Count
    bytes: Count
    things: Count
    hits: Count
    gaps: Count = 0
    kinds: Mapping[Text, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    """All that a receipt states about one request.

    batch           the deletion batch that carried the request out, with others perhaps
    rows_removed    rows of the request's samples that went from the ledger; `rows_left` survive the batch
    subjects        people whose data the request covered
    keys_destroyed  data keys, and `key_epoch`, the epoch that no longer holds them
    metrics         by name; a number may be None where there was nothing to measure
    verdict         the evaluation's sentence
    states          when the batch reached each state, in their order
    """

    __pydantic_config__ = _CONFIG
    request: Request
    batch: Name
    algorithm: Algorithm
    model: Model
    rows_removed: Count
    rows_left: Count
    subjects: Count
    keys_destroyed: Count
    key_epoch: Count
    purged: tuple[Purged, ...]
    scan: Scan
    verdict: Text
    states: Mapping[Name, Moment]
    metrics: Mapping[Text, Number | None] = field(default_factory=dict)


_ADAPTER = TypeAdapter(Receipt)


def to_json(receipt: Receipt) -> dict[str, Any]:
    """The facts as JSON with names in camelCase; raises ReceiptError naming the field that is malformed."""
    facts: dict[str, Any] = _ADAPTER.dump_python(receipt, by_alias=True, warnings=False)
    from_json(facts)
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def from_json(facts: Any) -> Receipt:
    """Read them back; raises ReceiptError naming the field that is malformed, missing or unknown."""
    try:
        return _ADAPTER.validate_json(json.dumps(facts))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "receipt"
        raise ReceiptError(f"receipt: {where} {_shown(first)}: correct the fact before it is signed") from None
    except TypeError as error:
        raise ReceiptError(f"receipt: {error}: give texts, whole numbers and tuples") from error


def _shown(error: Any) -> str:
    """What is wrong, without the value (it may be an id that should have been hashed)."""
    return str(error["msg"]).replace("String", "text").lower()
