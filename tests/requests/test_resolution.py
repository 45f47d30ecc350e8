import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amnesiac.errors import DamagedStore, RequestError, UnknownSample
from amnesiac.requests import DeletionRequest, ForgetSet, not_held, resolve


def request(kind, *values, name="r1"):
    return DeletionRequest(name, kind, values, "2026-11-23T12:00:05Z")


def test_by_sample_ids(index):
    assert resolve([request("samples", "s7", "s2")], index) == ForgetSet((2, 7), ("s2", "s7"), 2, {"r1": 2}, 0)


def test_by_subject(index):
    assert resolve([request("subject", "p1")], index) == ForgetSet((2, 3), ("s2", "s3"), 1, {"r1": 2}, 0)


@pytest.mark.parametrize("values", [("two",), ("2",), ("2", "two")])
def test_by_class_by_name_index_or_both(index, values):
    forget = resolve([request("class", *values)], index)
    assert forget.rows == (2, 5, 8, 11)
    assert forget.by_request == {"r1": 4}
    assert forget.not_trained == 2


def test_a_random_request_names_its_samples(index):
    assert resolve([request("random", "s0", "s5")], index).rows == (0, 5)


def test_overlapping_requests_count_each_but_forget_once(index):
    forget = resolve(
        [request("samples", "s2", name="a"), request("subject", "p1", name="b"), request("class", "two", name="c")],
        index,
    )
    assert forget.rows == (2, 3, 5, 8, 11)
    assert forget.by_request == {"a": 1, "b": 2, "c": 4}
    assert forget.n_subjects == 4


def test_test_and_validation_samples_are_not_trained(index):
    forget = resolve([request("samples", "s12", "s17", name="a"), request("samples", "s0", "s13", name="b")], index)
    assert forget == ForgetSet((0,), ("s0",), 1, {"a": 0, "b": 1}, 3)


def test_a_subject_across_splits_loses_its_train_samples(make_index):
    index = make_index(n_train=11)  # p5 owns s10 (train) and s11 (validation)
    assert resolve([request("subject", "p5")], index) == ForgetSet((10,), ("s10",), 1, {"r1": 1}, 1)


def test_no_requests_forget_nothing(index):
    assert resolve([], index) == ForgetSet((), (), 0, {}, 0)


def test_rows_are_looked_up_not_assumed_from_the_order(index):
    shuffled = index.sample(frac=1.0, random_state=1)
    requests = [request("class", "one"), request("samples", "s7", "s13", name="b")]
    assert resolve(requests, shuffled) == resolve(requests, index)


def test_unknown_names_are_all_listed(index):
    with pytest.raises(UnknownSample) as caught:
        resolve([request("samples", "s1", "s99"), request("subject", "s1"), request("class", "3", "nine")], index)
    assert "doesn't hold sample 's99', subject 's1', class '3', class 'nine' (4 unknown in all)" in str(caught.value)
    assert "check the spelling" in str(caught.value)


def test_a_long_list_of_unknown_names_is_cut_but_counted(index):
    with pytest.raises(UnknownSample) as caught:
        resolve([request("samples", *(f"x{k:02}" for k in range(50)))], index)
    assert "'x19' and 30 more (50 unknown in all)" in str(caught.value)
    assert "x20" not in str(caught.value)


def test_told_to_go_on_the_rest_is_resolved_and_what_is_missing_is_listed_by_request(index):
    requests = [
        request("samples", "s1", "s99", "s98", name="a"), request("subject", "p0", name="b"),
        request("subject", "s1", "nobody", name="c"), request("class", "nine", name="d"),
    ]  # fmt: skip
    forget = resolve(requests, index, unknown="go_on")
    assert (forget.rows, forget.by_request) == ((0, 1), {"a": 1, "b": 2, "c": 0, "d": 0})
    assert forget.not_held == {"a": ("s98", "s99"), "c": ("nobody", "s1"), "d": ("nine",)} == not_held(requests, index)
    with pytest.raises(UnknownSample, match=r"5 unknown in all.*set `requests: \{unknown: go_on\}` in params.yaml"):
        resolve(requests, index)
    assert resolve([request("samples", "s99")], index, unknown="go_on") == ForgetSet(
        (), (), 0, {"r1": 0}, 0, {"r1": ("s99",)}
    )
    with pytest.raises(RequestError, match="all 12 samples"):
        resolve([request("class", "0", "1", "2", "nine")], index, unknown="go_on")


def test_what_was_erased_before_is_missing_but_refuses_nothing(index):
    requests = [request("samples", "s1", "s99", name="a"), request("samples", "s98", name="b")]
    forget = resolve(requests, index, gone=lambda kind, value: value in ("s98", "s99"))
    assert (forget.rows, forget.not_held) == ((1,), {"a": ("s99",), "b": ("s98",)})
    with pytest.raises(UnknownSample, match=r"sample 's98' \(1 unknown in all\)"):
        resolve(requests, index, gone=lambda kind, value: value == "s99")


def test_ids_are_matched_exactly(index):
    for near in ("S1", "s01", "s1.0", "1"):
        with pytest.raises(UnknownSample):
            resolve([request("samples", near)], index)
    with pytest.raises(UnknownSample):
        resolve([request("class", "Two")], index)


def test_a_class_that_is_one_by_name_and_another_by_index_is_refused(index):
    index["class_name"] = index["label"].map({0: "0", 1: "2", 2: "1"})
    assert resolve([request("class", "0")], index).by_request == {"r1": 4}
    with pytest.raises(RequestError, match=r"class '2' means several classes \(labels \[1, 2\]"):
        resolve([request("class", "2")], index)


def test_digit_names_that_are_their_index_are_plain(index):
    index["class_name"] = index["label"].astype(str)
    assert resolve([request("class", "2")], index).rows == (2, 5, 8, 11)


def test_forgetting_everything_is_refused(index):
    everything = [request("class", "0", "1", name="a"), request("class", "two", name="b")]
    with pytest.raises(RequestError, match="all 12 samples of the train split, so nothing would be left: .*retrain"):
        resolve(everything, index)
    assert len(resolve(everything[:1], index).rows) == 8


def test_an_index_that_is_none_is_refused(index):
    with pytest.raises(DamagedStore, match="lacks the columns subject_id, split: .* run `amnesiac prepare` again"):
        resolve([], index.drop(columns=["subject_id", "split"]))
    with pytest.raises(DamagedStore, match="train rows aren't 0 to 11, each once"):
        resolve([], index.assign(row=1))
    index.loc[3, "subject_id"] = None
    with pytest.raises(DamagedStore, match="empty cells in subject_id"):
        resolve([], index)


def slow_rows(requests, index):
    """The obviously correct twin: every request against every row."""
    column = {
        "samples": ["sample_id"],
        "random": ["sample_id"],
        "subject": ["subject_id"],
        "class": ["label", "class_name"],
    }
    return {
        row.row
        for row in index.itertuples()
        for r in requests
        if row.split == "train" and any(str(getattr(row, name)) in r.values for name in column[r.kind])
    }


contents = st.one_of(
    st.tuples(st.just("samples"), st.sets(st.integers(0, 17).map("s{}".format), min_size=1, max_size=4)),
    st.tuples(st.just("subject"), st.sets(st.integers(0, 8).map("p{}".format), min_size=1, max_size=3)),
    st.tuples(
        st.just("class"), st.sets(st.sampled_from(["0", "1", "2", "zero", "one", "two"]), min_size=1, max_size=2)
    ),
)


@given(drawn=st.lists(contents, max_size=6), cut=st.integers(0, 6))
def test_the_union_of_requests_resolves_to_the_union_of_rows(shared_index, drawn, cut):
    index = shared_index
    requests = [request(kind, *sorted(values), name=f"r{k}") for k, (kind, values) in enumerate(drawn)]
    expected = slow_rows(requests, index)
    assume(len(expected) < 12)
    whole, left, right = (resolve(part, index) for part in (requests, requests[:cut], requests[cut:]))
    assert whole.rows == tuple(sorted(expected))
    assert whole.rows == tuple(sorted({*left.rows, *right.rows}))
    assert whole.sample_ids == tuple(f"s{row}" for row in whole.rows)
    assert whole.n_subjects == len({row // 2 for row in whole.rows})
    assert whole.by_request == {**left.by_request, **right.by_request}
    assert whole.by_request == {r.request_id: len(slow_rows([r], index)) for r in requests}


def test_sixty_thousand_samples_and_ten_thousand_requests_take_under_a_second():
    n = 60_000
    index = pd.DataFrame(
        {
            "row": np.arange(n),
            "sample_id": [f"mnist-{k:05}" for k in range(n)],
            "subject_id": [f"writer-{k // 10}" for k in range(n)],
            "label": np.arange(n) % 10,
            "class_name": [f"digit {k % 10}" for k in range(n)],
            "split": "train",
        }
    )
    requests = [request("subject", f"writer-{k}", name=f"p{k}") for k in range(4_000)]
    requests += [request("samples", f"mnist-{k + 40_000}", name=f"s{k}") for k in range(4_000)]
    requests += [request("class", "digit 3", name=f"c{k}") for k in range(2_000)]
    start = time.perf_counter()
    forget = resolve(requests, index)
    assert time.perf_counter() - start < 1.0
    assert len(forget.by_request) == 10_000
    assert forget.by_request["c7"] == 6_000
    assert len(forget.rows) == 40_000 + 4_000 + 1_600
