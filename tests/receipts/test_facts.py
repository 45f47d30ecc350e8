"""What a receipt states is checked before it is signed, and read back as it was."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from amnesiac.errors import ReceiptError
from amnesiac.receipts import Purged, Request
from amnesiac.receipts.facts import from_json, to_json


def test_facts_survive_json(make):
    assert from_json(json.loads(json.dumps(to_json(make())))) == make()


def test_facts_are_frozen(make):
    with pytest.raises(FrozenInstanceError):
        make().batch = "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request": Request("r-1", "2026-11-01T08:00:00Z", "2026-12-01", ())}, "request.deadline"),
        ({"request": Request("r-1", "2026-13-01T08:00:00Z", "2026-12-01T08:00:00Z", ())}, "request.received"),
        ({"request": Request("r 1", "2026-11-01T08:00:00Z", "2026-12-01T08:00:00Z", ())}, "request.id"),
        ({"rows_left": -1}, "rowsLeft"),
        ({"rows_left": 1.5}, "rowsLeft"),
        ({"rows_left": "7"}, "rowsLeft"),
        ({"metrics": {"AUC": float("nan")}}, "metrics.AUC"),
        ({"states": {"PUBLISHED": "yesterday"}}, "states.PUBLISHED"),
        ({"verdict": ""}, "verdict"),
        ({"purged": (Purged("", "x", 1),)}, "purged.0.place"),
        ({"batch": None}, "batch"),
    ],
)
def test_a_malformed_fact_is_named(changes, message, make):
    with pytest.raises(ReceiptError, match=rf"receipt: {message} .*correct the fact"):
        to_json(make(**changes))


def test_an_id_that_should_have_been_hashed_is_refused_and_not_repeated(make):
    receipt = make()
    receipt = replace(receipt, request=replace(receipt.request, ids=("writer-0042",)))
    with pytest.raises(ReceiptError, match=r"request\.ids\.0") as caught:
        to_json(receipt)
    assert "writer-0042" not in str(caught.value)


def test_missing_and_unknown_fields_are_named(make):
    facts = to_json(make())
    with pytest.raises(ReceiptError, match="receipt: batch"):
        from_json({name: value for name, value in facts.items() if name != "batch"})
    with pytest.raises(ReceiptError, match="receipt: extra"):
        from_json(facts | {"extra": 1})
    with pytest.raises(ReceiptError, match="receipt: receipt"):
        from_json([])
