import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac.errors import InputError
from amnesiac.evaluation import auc, tpr_at_fpr
from amnesiac.evaluation.roc import weighted_auc, weighted_tpr

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=8)


def test_auc_by_hand():
    # pairs: 3>1, 3>2, 2>1, 2=2 -> 3.5 of 4
    assert auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == 3.5 / 4


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs_won(positives, negatives):
    wins = sum((a > b) + 0.5 * (a == b) for a in positives for b in negatives)
    assert auc(torch.tensor(positives), torch.tensor(negatives)) == pytest.approx(
        wins / len(positives) / len(negatives)
    )


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_tpr_is_the_best_that_a_threshold_within_the_rate_reaches(positives, negatives, fpr):
    best = 0.0
    for limit in [*positives, *negatives, -10.0]:
        for strict in (True, False):
            accused = [b > limit if strict else b >= limit for b in negatives]
            if sum(accused) <= fpr * len(negatives):
                best = max(best, sum(a > limit if strict else a >= limit for a in positives) / len(positives))
    assert tpr_at_fpr(torch.tensor(positives), torch.tensor(negatives), fpr) == pytest.approx(best)


def test_weights_count_as_copies():
    a, b = torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    w, v = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    copies = torch.tensor([3.0, 3.0, 1.0]), torch.tensor([2.0, 0.0, 0.0, 0.0])
    assert float(weighted_auc(a, w, b, v)) == pytest.approx(auc(*copies))
    for fpr in (0.0, 0.25, 1.0):
        assert float(weighted_tpr(a, w, b, v, torch.tensor([fpr]))) == pytest.approx(tpr_at_fpr(*copies, fpr))


def test_few_negatives_do_not_flatter():
    negatives = torch.arange(50.0)
    assert tpr_at_fpr(torch.tensor([48.5, 49.5]), negatives, 0.01) == 0.5
    assert tpr_at_fpr(torch.tensor([48.5, 49.5]), negatives, 0.02) == 1.0


def test_no_scores_are_refused():
    with pytest.raises(InputError, match="there are 0 and 1: pass at least one of each"):
        auc(torch.empty(0), torch.ones(1))
