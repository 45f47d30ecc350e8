"""From deletion requests to the rows of the train split that must be forgotten."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from amnesiac.errors import DamagedStore, KeyDestroyed, RequestError, UnknownSample
from amnesiac.operation import Unknown
from amnesiac.requests.request import DeletionRequest, Kind

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("row", "sample_id", "subject_id", "label", "class_name", "split")
LISTED = 20
_COLUMN: dict[Kind, str] = {
    "samples": "sample_id",
    "random": "sample_id",
    "subject": "subject_id",
    "class": "label",
}
_NOUN: dict[Kind, str] = {"samples": "sample", "random": "sample", "subject": "subject", "class": "class"}
_GO_ON = (
    ". Nothing of the batch was carried out. To carry out what the data set does hold, and have the rest listed as not "
    "held in status, report and receipt, set `requests: {unknown: go_on}` in params.yaml"
)
Ints = npt.NDArray[np.int64]
Gone = Callable[[Kind, str], bool]
"""Whether a value (of a kind of request) names what was erased, so that the index needn't hold it."""


def nothing_gone(kind: Kind, value: str) -> bool:
    """Nothing was erased."""
    return False


@dataclass(frozen=True)
class ForgetSet:
    """The union of some requests.

    `rows` are sorted positions within the train split, `sample_ids` are theirs in the same order, `n_subjects`
    is how many people these samples belong to. `by_request` counts each request's train samples (a sample that
    two requests name counts for both). `not_trained` counts requested samples of the test and validation
    splits: the model never learned from them, so there is nothing to forget. `not_held`: by request id, what it named
    that the index doesn't hold (unknown, or erased before), sorted; only of requests that have such values.
    """

    rows: tuple[int, ...]
    sample_ids: tuple[str, ...]
    n_subjects: int
    by_request: dict[str, int]
    not_trained: int
    not_held: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Selecting(Protocol):
    """What names samples: a draft or a journalled request."""

    @property
    def kind(self) -> Kind:
        """What the values are."""
        ...

    @property
    def values(self) -> tuple[str, ...]:
        """Sample ids, subject ids or classes."""
        ...


@dataclass
class _Selected:
    """Which rows of the index are selected, train samples a request, and what the index doesn't hold."""

    rows: npt.NDArray[np.bool_]
    per_request: Ints
    missing: dict[int, list[str]]
    """By number of the request."""


def resolve(
    requests: Sequence[DeletionRequest], index: "pd.DataFrame", *, gone: Gone = nothing_gone, redacted: bool = False,
    unknown: Unknown = "refuse",
) -> ForgetSet:  # fmt: skip
    """Look the requests up in a prepared data set's index.

    `index` has the columns row, sample_id, subject_id, label, class_name and split; `row` counts the train
    split's samples from 0. Values that are `gone` may be missing in it. `redacted`: requests whose values are no longer
    known may be among them, and name nothing (right for a run that began after their samples were erased). `unknown`:
    whether values that are neither held nor gone refuse all, or go into `not_held` like those that are gone.

    Raises UnknownSample listing what the index doesn't hold (unless told to go on), RequestError when a class is
    ambiguous or no train sample would be left, KeyDestroyed when a request was redacted and mayn't be, and DamagedStore
    when the index itself is malformed.
    """
    if not redacted:
        _refuse_redacted(requests)
    train = _train_mask(index)
    selected = _select(requests, index, train)
    if unknown == "refuse":
        _refuse_unknown((one for one in _missing(requests, selected) if not gone(*one)), _GO_ON)
    _refuse_all(selected.rows, train)
    forgotten = index.loc[selected.rows & train].sort_values("row")
    return ForgetSet(
        rows=tuple(forgotten["row"].tolist()),
        sample_ids=tuple(forgotten["sample_id"].astype(str)),
        n_subjects=int(forgotten["subject_id"].nunique()),
        by_request=dict(zip((r.request_id for r in requests), selected.per_request.tolist(), strict=True)),
        not_trained=int((selected.rows & ~train).sum()),
        not_held=_not_held(requests, selected),
    )


def not_held(requests: Sequence[DeletionRequest], index: "pd.DataFrame") -> dict[str, tuple[str, ...]]:
    """`ForgetSet.not_held` without refusing anything; redacted requests name nothing. Raises RequestError for a class
    that is ambiguous, DamagedStore when the index is malformed.
    """
    return _not_held(requests, _select(requests, index, _train_mask(index)))


def named_rows(request: DeletionRequest, index: "pd.DataFrame") -> npt.NDArray[np.bool_]:
    """Which rows of the index a request names, bool `[n]`, of all splits; none for a redacted one."""
    return _select([request], index, _train_mask(index)).rows


def refuse_unfit(
    new: Sequence[Selecting], journalled: Sequence[Selecting], index: "pd.DataFrame", forgotten: Sequence[int] = ()
) -> None:
    """Raise what `resolve` would raise for the new requests, before they are journalled.

    The journal is append-only: a request that empties the train split together with the journalled ones could
    never be taken back, and every later batch would fail. `forgotten`: train rows that are gone already, whoever
    asked for it. Raises UnknownSample, RequestError, DamagedStore.
    """
    train = _train_mask(index)
    selected = _select(new, index, train)
    _refuse_unknown(_missing(new, selected))
    gone = train & index["row"].isin(list(forgotten)).to_numpy(bool)
    _refuse_all(selected.rows | _select(journalled, index, train).rows | gone, train)


def _train_mask(index: "pd.DataFrame") -> npt.NDArray[np.bool_]:
    """Bool [n]: rows of the train split, after checking that the index is one."""
    remedy = "it isn't a prepared data set's index: run `amnesiac prepare` again"
    missing = [name for name in COLUMNS if name not in index.columns]
    if missing:
        raise DamagedStore(f"the index lacks the columns {', '.join(missing)}: {remedy}")
    empty = [name for name in COLUMNS if index[name].isna().any()]
    if empty:
        raise DamagedStore(f"the index has empty cells in {', '.join(empty)}: {remedy}")
    train = (index["split"] == "train").to_numpy(bool)
    if not np.array_equal(np.sort(index["row"].to_numpy()[train]), np.arange(train.sum())):
        raise DamagedStore(f"the index's train rows aren't 0 to {train.sum() - 1}, each once: {remedy}")
    return train


def _select(requests: Sequence[Selecting], index: "pd.DataFrame", train: npt.NDArray[np.bool_]) -> _Selected:
    selected = _Selected(np.zeros(len(index), bool), np.zeros(len(requests), np.int64), {})
    for kind in _COLUMN:
        numbers = [k for k, request in enumerate(requests) if request.kind == kind and not _is_redacted(request)]
        if numbers:
            _select_kind(kind, numbers, [requests[k].values for k in numbers], index, train, selected)
    return selected


def _select_kind(
    kind: Kind,
    numbers: list[int],
    values: list[tuple[str, ...]],
    index: "pd.DataFrame",
    train: npt.NDArray[np.bool_],
    selected: _Selected,
) -> None:
    """Add one kind's requests to `selected`, in time O(rows + values) however many requests there are.

    Every row has one code (of its id, subject or class) and every value names one code. So counting by code
    is enough, and no list of (request, row) pairs is ever built.
    """
    import pandas as pd

    row_codes, names = pd.factorize(index[_COLUMN[kind]])
    flat = [value for request_values in values for value in request_values]
    codes = _class_codes(flat, index, names) if kind == "class" else _codes(flat, names.astype(str))
    owners = np.repeat(np.asarray(numbers, np.int64), [len(v) for v in values])
    for place in np.flatnonzero(codes < 0).tolist():
        selected.missing.setdefault(int(owners[place]), []).append(flat[place])
    owners = owners[codes >= 0]
    # Each (request, code) once: "3" and "three" may be the same class.
    pairs = np.unique(np.stack([owners, codes[codes >= 0]]), axis=1)
    chosen = np.zeros(len(names), bool)
    chosen[pairs[1]] = True
    selected.rows |= chosen[row_codes]
    trained = np.bincount(row_codes[train], minlength=len(names))
    np.add.at(selected.per_request, pairs[0], trained[pairs[1]])


def _codes(values: list[str], names: "pd.Index") -> Ints:
    import pandas as pd

    return names.get_indexer(pd.Index(values, dtype=names.dtype)).astype(np.int64)


def _class_codes(values: list[str], index: "pd.DataFrame", labels: "pd.Index") -> Ints:
    """Code of each class by its name or its index; -1 where there is none."""
    meanings: dict[str, set[int]] = {}
    classes = index[["label", "class_name"]].drop_duplicates()
    for label, name in zip(classes["label"].tolist(), classes["class_name"].astype(str), strict=True):
        meanings.setdefault(name, set()).add(label)
        meanings.setdefault(str(label), set()).add(label)
    wanted = [meanings.get(value, set()) for value in values]
    for value, found in zip(values, wanted, strict=True):
        if len(found) > 1:
            raise RequestError(
                f"class {value!r} means several classes (labels {sorted(found)}: one by name, one by index): "
                "use the other way to name the one you mean, or list its sample ids"
            )
    code_of = {label: code for code, label in enumerate(labels.tolist())}
    return np.asarray([code_of[next(iter(found))] if found else -1 for found in wanted], np.int64)


def _missing(requests: Sequence[Selecting], selected: _Selected) -> Iterable[tuple[Kind, str]]:
    """Kind and value of what the index doesn't hold, each once."""
    # kind by kind, as they were looked up
    return dict.fromkeys((requests[k].kind, value) for k, values in selected.missing.items() for value in values)


def _not_held(requests: Sequence[DeletionRequest], selected: _Selected) -> dict[str, tuple[str, ...]]:
    return {requests[k].request_id: tuple(sorted(values)) for k, values in sorted(selected.missing.items())}


def _is_redacted(request: Selecting) -> bool:
    """Whether the values are HMACs; a draft's never are."""
    return bool(getattr(request, "redacted", False))


def _refuse_redacted(requests: Sequence[DeletionRequest]) -> None:
    redacted = [request.request_id for request in requests if request.redacted]
    if redacted:
        raise KeyDestroyed(
            f"{len(redacted)} requests were carried out, erased and redacted, the first {redacted[0]!r}: the keys of "
            "what they named are destroyed, so the version that they were applied in can't be computed from the "
            "trained model again. The published version is in pipeline_data/published; to train another one, run "
            "`amnesiac prepare --force` and `amnesiac train`"
        )


def _refuse_unknown(unknown: Iterable[tuple[Kind, str]], more_remedy: str = "") -> None:
    names = [f"{_NOUN[kind]} {value!r}" for kind, value in unknown]
    if names:
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        raise UnknownSample(
            f"the data set doesn't hold {', '.join(names[:LISTED])}{more} ({len(names)} unknown in all): "
            f"check the spelling, and that the requests are meant for this prepared data set{more_remedy}"
        )


def _refuse_all(rows: npt.NDArray[np.bool_], train: npt.NDArray[np.bool_]) -> None:
    if train.any() and rows[train].all():
        raise RequestError(
            f"these requests name all {train.sum()} samples of the train split, so nothing would be left: "
            "delete the model and retrain on other data instead, or leave requests out"
        )
