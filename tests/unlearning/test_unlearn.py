"""Deleting nothing is the identity, and a deletion is the same bits in whatever order and grouping it was asked for."""

import random

import pytest
import torch

from amnesiac.errors import IncompleteStore, SpecMismatch
from amnesiac.ledger.spec import LedgerSpec
from amnesiac.settings import CaptureSettings, SettledSettings, UnlearningSettings
from amnesiac.unlearning.unlearn import METHODS, ledgers_for, unlearn

SETTINGS = {name: UnlearningSettings(method=name) for name in METHODS if name != "settled"} | {
    "per-sample-subset as described": UnlearningSettings(method="per-sample-subset", scale="one")
}
A, B = [0, 5, 6, 11], [2, 3, 17, 22, 9]


def bits(weights):
    return {name: value.numpy().tobytes() for name, value in weights.items()}


@pytest.fixture(params=SETTINGS)
def settings(request):
    return SETTINGS[request.param]


def test_deleting_nothing_is_the_identity_bit_for_bit(trained, settings):
    weights = {name: value.clone() for name, value in trained.weights.items()}
    weights["0.weight"].view(-1)[:2] = -0.0
    result = unlearn(settings, trained.ledger, weights, [])
    assert bits(result.weights) == bits(weights)
    assert result.rows == 0
    result.weights["0.weight"].fill_(7.0)
    assert not (weights["0.weight"] == 7.0).any()


def test_the_given_weights_are_left_alone_and_buffers_stay(trained, settings):
    before = bits(trained.weights)
    result = unlearn(settings, trained.ledger, trained.weights, A)
    assert bits(trained.weights) == before
    after = bits(result.weights)
    assert all(after[name] != before[name] for name in ("5.weight", "7.weight"))
    buffers = set(before) - set(trained.parameters)
    assert buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(after[name] == before[name] for name in buffers)
    assert all(value.dtype == trained.weights[name].dtype for name, value in result.weights.items())


def test_any_order_with_duplicates_gives_the_same_bits(trained, settings):
    whole = bits(unlearn(settings, trained.ledger, trained.weights, A + B).weights)
    shuffled = random.Random(0).sample(2 * A + B + A[:2], k=2 * len(A) + len(B) + 2)
    assert bits(unlearn(settings, trained.ledger, trained.weights, shuffled).weights) == whole
    assert bits(unlearn(settings, trained.ledger, trained.weights, A).weights) != whole


@pytest.mark.parametrize("name", ["delta", "subset-one", "subset-lr"])
def test_sums_of_disjoint_sets_add_up_bit_for_bit(trained, name):
    first, second = (trained.ledger.total(name, rows) for rows in (A, B))
    for key, union in trained.ledger.total(name, A + B).items():
        assert torch.equal(first[key] + second[key], union)
        assert torch.equal(second[key] + first[key], union)


def test_what_is_added_is_the_sum_of_the_rows(trained):
    result = unlearn(SETTINGS["per-sample-delta"], trained.ledger, trained.weights, A)
    total = trained.ledger.total("delta", A)
    for name in trained.parameters:
        expected = (trained.weights[name].double() + total[name]).float()
        assert torch.equal(result.weights[name], expected)


def test_the_report_says_what_was_read(trained):
    result = unlearn(SETTINGS["per-sample-delta"], trained.ledger, trained.weights, [*A, *A])
    assert (result.ledger, result.rows) == ("delta", len(A))
    assert result.row_bytes == trained.ledger.manifest.entries["delta"].row_bytes
    assert result.seconds > 0


def test_a_method_that_was_not_captured_is_refused(train_run, tmp_path):
    run = train_run(tmp_path, methods=("per-sample-delta",))
    with pytest.raises(SpecMismatch, match=r"no 'subset-lr' rows.*capture\.methods"):
        unlearn(SETTINGS["per-sample-subset"], run.ledger, run.weights, A)


def test_a_sample_that_was_not_captured_is_refused(train_run, tmp_path):
    run = train_run(tmp_path, methods=("per-sample-delta",), classes=(2,))
    unlearn(SETTINGS["per-sample-delta"], run.ledger, run.weights, [2, 5])
    with pytest.raises(IncompleteStore, match=r"s0.*capture\.classes"):
        unlearn(SETTINGS["per-sample-delta"], run.ledger, run.weights, [0, 2])


def test_ledgers_for_the_chosen_methods():
    capture = CaptureSettings(methods=tuple(METHODS), subset_fraction=0.2)
    assert ledgers_for(capture) == (
        LedgerSpec("settled", "settled", "rate"),
        LedgerSpec("settled-class", "settled class", "rate"),
        LedgerSpec("delta", "sample", "optimizer", 1.0),
        LedgerSpec("subset-one", "sample", "one", 0.2),
        LedgerSpec("subset-lr", "sample", "lr", 0.2),
        LedgerSpec("updates", "step"),
        LedgerSpec("updates-partial", "step", fraction=0.2),
    )
    assert ledgers_for(CaptureSettings(methods=("amnesiac-batch",))) == (LedgerSpec("updates", "step"),)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (SettledSettings(class_rows=False), [("settled", "settled")]),
        (SettledSettings(rows="unsettled"), [("contributions", "segment")]),
        (SettledSettings(rows="masked"), [("settled", "settled"), ("settled-class", "settled class")]),
    ],
)
def test_ledgers_for_the_forms_of_settled_rows(form, expected):
    specs = ledgers_for(CaptureSettings(methods=("settled",), settled=form))
    assert [(spec.name, spec.per) for spec in specs] == expected
    assert all((spec.weights, spec.form) == ("rate", form) for spec in specs)


def test_every_method_of_the_settings_exists_and_names_its_source():
    for name, method in METHODS.items():
        assert UnlearningSettings(method=name).method == method.name == name
        assert method.summary
        assert method.source
