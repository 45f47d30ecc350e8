import hashlib
import json
from datetime import UTC, datetime

import pytest

from amnesiac.errors import RequestError
from amnesiac.requests import DeletionRequest, RequestDraft, draw_random, pending

NOON = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)


def test_values_are_sorted_and_each_once():
    accepted = RequestDraft("samples", ("s2", "s1", "s2")).accept("salt", NOON)
    assert accepted.values == ("s1", "s2")
    assert accepted.received == "2026-11-23T12:00:05Z"


def test_the_same_content_gets_the_same_id_and_other_content_another():
    ids = [
        RequestDraft(kind, values).accept("salt", NOON).request_id
        for kind, values in [
            ("samples", ("a", "b")),
            ("samples", ("b", "a")),
            ("subject", ("a", "b")),
            ("samples", ("ab",)),
        ]
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_derived_id_cannot_be_found_by_hashing_subject_ids():
    draft = RequestDraft("subject", ("patient-17",))
    request_id = draft.accept("salt of this journal", NOON).request_id
    assert "patient" not in request_id
    assert request_id != draft.accept("salt of another journal", NOON).request_id
    guess = hashlib.sha256(json.dumps(["subject", "patient-17"], separators=(",", ":")).encode()).hexdigest()
    assert guess[:32] not in request_id


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "person"}, "unknown kind of request 'person': use one of samples, subject"),
        ({"values": ()}, "names nothing"),
        ({"values": "s1"}, "tuple"),
        ({"values": (3,)}, "3 isn't text: write ids and classes as strings"),
        ({"values": ("",)}, "sample id '' must be 1 to 64"),
        ({"values": ("x" * 65,)}, "must be 1 to 64 of A-Z"),
        ({"kind": "subject", "values": ("a b",)}, "subject id 'a b' must be 1 to 64"),
        ({"kind": "class", "values": ("x" * 257,)}, "a text of 1 to 256 characters"),
        ({"kind": "class", "values": ("",)}, "a text of 1 to 256 characters"),
        ({"kind": "class", "values": (" 3",)}, "space around it"),
        ({"kind": "class", "values": ("3\n",)}, "control characters"),
        ({"kind": "class", "values": ("\ud800",)}, "control characters"),
        ({"values": (" s1",)}, "must be 1 to 64"),
        ({"values": ("s1\n",)}, "must be 1 to 64"),
        ({"values": ("ſ1",)}, "must be 1 to 64"),
        ({"request_id": "x" * 65}, "must be 1 to 64 of A-Z"),
        ({"request_id": ""}, "must be 1 to 64 of A-Z"),
        ({"request_id": "ticket 7"}, "request_id 'ticket 7' must be 1 to 64"),
        ({"request_id": "ticket-7\n"}, "must be 1 to 64"),
        ({"request_id": 7}, "request_id 7 must be 1 to 64"),
        ({"reason": "line\nbreak"}, "control characters"),
        ({"received": "2026-11-23"}, "received '2026-11-23' isn't like"),
        ({"received": "2026-1-3T01:02:03Z"}, "isn't like"),
    ],
)
def test_malformed_requests_are_refused(changed, message):
    good = {"request_id": "r", "kind": "samples", "values": ("s1",), "received": "2026-11-23T12:00:05Z"}
    assert DeletionRequest(**good).reason is None
    with pytest.raises(RequestError, match=message):
        DeletionRequest(**{**good, **changed})


@pytest.mark.parametrize("value", ["x" * 256, "T-shirt/top", "Grün", "=1+1", "Ankle boot"])
def test_a_class_name_is_any_printable_text(value):
    assert RequestDraft("class", (value,)).values == (value,)


def test_a_draw_is_repeatable_and_of_train_samples_only(index):
    draft = draw_random(index, seed=3, count=5)
    assert draft == draw_random(index, seed=3, count=5)
    assert draft.values != draw_random(index, seed=4, count=5).values
    assert len(set(draft.values)) == 5
    assert set(draft.values) <= set(index.loc[index["split"] == "train", "sample_id"])
    assert draft.kind == "random"
    assert draft.reason == "random draw of 5 of 12 samples, seed 3"


def test_a_draw_depends_on_the_ids_not_on_their_order(index):
    assert draw_random(index.iloc[::-1], seed=3, count=5).values == draw_random(index, seed=3, count=5).values


@pytest.mark.parametrize(("fraction", "size"), [(0.5, 6), (0.01, 1), (0.25, 3)])
def test_a_fraction_is_rounded_but_never_to_nothing(index, fraction, size):
    assert len(draw_random(index, seed=0, fraction=fraction).values) == size


@pytest.mark.parametrize(
    ("how_many", "message"),
    [
        ({}, "either a count or a fraction"),
        ({"count": 2, "fraction": 0.1}, "either a count or a fraction"),
        ({"count": 0}, "can't draw count 0 of 12 train samples: ask for 1 to 11"),
        ({"count": 12}, "can't draw count 12"),
        ({"fraction": 0.0}, r"can't draw fraction 0\.0"),
        ({"fraction": 1.0}, r"can't draw fraction 1\.0"),
        ({"fraction": -0.2}, r"can't draw fraction -0\.2"),
    ],
)
def test_impossible_draws_are_refused(index, how_many, message):
    with pytest.raises(RequestError, match=message):
        draw_random(index, seed=0, **how_many)


def test_pending_is_what_no_version_has_applied():
    requests = [DeletionRequest(f"r{k}", "samples", ("s1",), "2026-11-23T12:00:05Z") for k in range(4)]
    assert [r.request_id for r in pending(requests, {"r2", "r0", "elsewhere"})] == ["r1", "r3"]
    assert pending(requests, [r.request_id for r in requests]) == ()
