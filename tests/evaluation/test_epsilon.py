import itertools
import math

import pytest
import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import competition_score, forgetting_epsilon, forgetting_score


def by_loops(u, r, delta):
    """All thresholds and intervals, one by one."""
    limits = [*sorted({*u, *r}), math.inf]
    found = [0.0]
    for a, b in itertools.combinations_with_replacement(limits, 2):
        for inside in (True, False):
            fpr = sum((a <= x < b) == inside for x in r) / len(r)
            fnr = sum((a <= x < b) != inside for x in u) / len(u)
            if fpr == 0 and fnr == 0:
                return math.inf
            if fpr and fnr:
                for x, y in ((fpr, fnr), (fnr, fpr)):
                    found.append(math.log((1 - delta - x) / y) if 1 - delta - x > 0 else -math.inf)
    return max(found)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_by_hand():
    # u: 0 0 0 1, r: 0 1 1 1. The threshold "0 is unlearned": FPR 1/4, FNR 1/4, so log((1 - d - 1/4) / (1/4))
    found = forgetting_epsilon(column(0, 0, 0, 1), column(0, 1, 1, 1), delta=0.01)
    assert float(found) == pytest.approx(math.log(0.74 / 0.25))


def test_equals_the_loops():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(9, 6, generator=generator).mul(2).round() / 2
    r = torch.randn(7, 6, generator=generator).mul(3).round() / 2
    for delta in (0.0, 0.01, 0.1):
        expected = [by_loops(u[:, k].tolist(), r[:, k].tolist(), delta) for k in range(6)]
        assert forgetting_epsilon(u, r, delta).tolist() == pytest.approx(expected)


def test_told_apart_without_error_is_infinite_by_one_threshold_or_two():
    r = column(0, 1, 2, 3)
    assert forgetting_epsilon(column(4, 5), r).tolist() == [math.inf]
    assert forgetting_epsilon(column(-1, 9), r).tolist() == [math.inf]


def test_the_same_value_everywhere_is_zero_and_delta_only_helps():
    assert forgetting_epsilon(torch.ones(5, 2), torch.ones(6, 2)).tolist() == [0.0, 0.0]
    generator = torch.Generator().manual_seed(3)
    u, r = torch.randn(20, 8, generator=generator) + 1, torch.randn(20, 8, generator=generator)
    assert bool((forgetting_epsilon(u, r, 0.1) <= forgetting_epsilon(u, r, 0.01)).all())


def test_score_by_hand():
    # bins 1, 2, 3, 13 -> 1, 1/2, 1/4, 2/2^13; .5 belongs to the second bin
    epsilons = torch.tensor([0.49, 0.5, 1.2, math.inf])
    assert forgetting_score(epsilons) == pytest.approx((1 + 0.5 + 0.25 + 2**-12) / 4)
    assert forgetting_score(torch.zeros(3)) == 1.0


def test_competition_score_by_hand():
    assert competition_score(0.5, (0.9, 1.0), (0.8, 0.9)) == pytest.approx(0.5 * 0.9 * 0.8 / 0.9)


def test_what_is_not_defined_is_refused():
    with pytest.raises(InputError, match="delta is 1.0"):
        forgetting_epsilon(torch.ones(2, 1), torch.ones(2, 1), 1.0)
    with pytest.raises(InputError, match="score of no example"):
        forgetting_score(torch.empty(0))
    with pytest.raises(InputError, match="the retrained models' test accuracy is 0.0"):
        competition_score(0.5, (1.0, 1.0), (0.1, 0.0))
