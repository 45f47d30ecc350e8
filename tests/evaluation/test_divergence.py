import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac.errors import InputError, SpecMismatch
from amnesiac.evaluation import kl, margin, mean_abs_margin_difference, relative_verification_error

LABELS = torch.tensor([0, 2])
# logits whose softmax is easy to write down: log of unnormalised probabilities
A = torch.tensor([[1.0, 2.0, 3.0], [4.0, 1.0, 5.0]]).log()
B = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 8.0]]).log()


def test_margin_by_hand():
    expected = torch.tensor([math.log(1 / 5), math.log(5 / 5)], dtype=torch.float64)
    torch.testing.assert_close(margin(A, LABELS), expected, atol=1e-7, rtol=0)


def test_margin_is_the_log_odds_of_the_label():
    logits = 50 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 4
    p = logits.softmax(1)[torch.arange(20), labels]
    usable = (p > 1e-6) & (p < 1 - 1e-6)
    assert usable.sum() >= 3
    torch.testing.assert_close(margin(logits, labels)[usable], (p / (1 - p)).log()[usable], rtol=1e-6, atol=1e-6)


def test_margin_of_one_class_is_refused():
    with pytest.raises(InputError, match=r"at least two classes, .*\[3, 1\]"):
        margin(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_mean_abs_margin_difference_by_hand():
    # margins of A: log 1/5, 0; of B: log 1, log 4; differences log 5 and log 4, with opposite signs after a swap
    expected = (math.log(5) + math.log(4)) / 2
    assert mean_abs_margin_difference(A, B, LABELS) == pytest.approx(expected, abs=1e-7)
    mixed_a, mixed_b = torch.stack([A[0], B[1]]), torch.stack([B[0], A[1]])
    assert mean_abs_margin_difference(mixed_a, mixed_b, LABELS) == pytest.approx(expected, abs=1e-7)


def test_kl_by_hand():
    first = 1 / 6 * math.log((1 / 6) / (1 / 2)) + 1 / 3 * math.log((1 / 3) / (1 / 4)) + 1 / 2 * math.log(2)
    second = 0.4 * math.log(0.4 / 0.1) + 0.1 * math.log(0.1 / 0.1) + 0.5 * math.log(0.5 / 0.8)
    assert kl(A, B) == pytest.approx((first + second) / 2, abs=1e-7)


def test_kl_is_not_symmetric_and_the_reference_comes_first():
    certain, unsure = torch.tensor([[0.0, -9.0]]), torch.tensor([[0.0, 0.0]])
    assert kl(certain, unsure) == pytest.approx(math.log(2), rel=1e-2)
    assert kl(unsure, certain) == pytest.approx(0.5 * 9 - math.log(2), rel=1e-2)


def test_kl_stays_finite_where_probabilities_vanish():
    assert kl(torch.tensor([[0.0, -5000.0]]), torch.tensor([[-5000.0, 0.0]])) == pytest.approx(5000.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 5), st.floats(0.01, 30))
def test_kl_is_never_negative_and_zero_on_equal_models(seed, n, classes, scale):
    a, b = scale * torch.randn(2, n, classes, generator=torch.Generator().manual_seed(seed))
    assert kl(a, a) == 0.0
    assert kl(a, a + 3.0) == pytest.approx(0.0, abs=1e-5)
    assert kl(a, b) > -1e-12


@pytest.mark.parametrize("other", [torch.zeros(2, 4), torch.zeros(3, 3)])
def test_logits_of_different_shapes_are_refused(other):
    with pytest.raises(InputError, match=r"\[2, 3\] and \[., .\] can't be compared"):
        kl(A, other)


def test_no_samples_are_refused():
    with pytest.raises(InputError, match="at least one"):
        kl(A[:0], A[:0])
    with pytest.raises(InputError, match="at least one"):
        mean_abs_margin_difference(A[:0], A[:0], LABELS[:0])


def weights(w, b, steps=0):
    return {"w": torch.tensor(w), "b": torch.tensor(b), "steps": torch.tensor(steps)}


def test_relative_verification_error_by_hand():
    retrained, original = weights([0.0, 0.0], [0.0]), weights([3.0, 0.0], [4.0])
    unlearned = weights([0.0, 1.0], [2.0], steps=9)
    # sqrt(1 + 4) / sqrt(9 + 16); the integer counter isn't a weight
    assert relative_verification_error(unlearned, retrained, original) == pytest.approx(math.sqrt(5) / 5)
    assert relative_verification_error(unlearned, retrained, original, ["b"]) == pytest.approx(2 / 4)
    assert relative_verification_error(original, retrained, original) == 1.0
    assert relative_verification_error(retrained, retrained, original) == 0.0


def test_differences_below_float32_of_the_sum_are_kept():
    retrained, original = weights([0.0, 0.0], [0.0]), weights([1e-30, 0.0], [0.0])
    assert relative_verification_error(weights([5e-31, 0.0], [0.0]), retrained, original) == pytest.approx(0.5)


def test_when_there_was_nothing_to_forget():
    same = weights([1.0, 2.0], [3.0])
    assert relative_verification_error(same, same, same) == 0.0
    assert relative_verification_error(weights([1.0, 2.0], [3.5]), same, same) == math.inf


def test_different_architectures_are_refused():
    good = weights([1.0, 2.0], [3.0])
    with pytest.raises(SpecMismatch, match=r"\['w'\]"):
        relative_verification_error(weights([1.0], [3.0]), good, good)
    with pytest.raises(SpecMismatch, match=r"\['extra'\]"):
        relative_verification_error(good, good, {**good, "extra": torch.zeros(1)})
