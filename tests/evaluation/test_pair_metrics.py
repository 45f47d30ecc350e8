"""ToW, confusion, agreement, activation distance and the population attack."""

import math

import pytest
import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import Triplet, activation_distance, agreement, confusion, population_attack, tow
from amnesiac.evaluation.population import features


def test_tow_by_hand():
    unlearned, retrained = Triplet(0.9, 0.95, 0.8), Triplet(0.8, 0.97, 0.85)
    assert tow(unlearned, retrained) == pytest.approx(0.9 * 0.98 * 0.95)
    assert tow(retrained, unlearned) == tow(unlearned, retrained) and tow(retrained, retrained) == 1.0


def test_over_forgetting_costs_as_much_as_too_little():
    retrained = Triplet(0.8, 1.0, 0.9)
    assert tow(Triplet(0.9, 1.0, 0.9), retrained) == pytest.approx(tow(Triplet(0.7, 1.0, 0.9), retrained))


def test_percentages_are_refused():
    with pytest.raises(InputError, match=r"retain is 97\.0: ToW takes shares"):
        Triplet(0.8, 97.0, 0.9)


def test_confusion_counts_only_the_two_classes_taken_for_each_other():
    logits = torch.eye(6)[[5, 5, 3, 1, 3]]
    assert confusion(logits, torch.tensor([3, 5, 3, 3, 1]), (3, 5)) == 0.25
    assert confusion(logits, torch.tensor([0, 1, 2, 0, 1]), (3, 5)) == 0.0
    with pytest.raises(InputError, match="class 3 can't be confused with itself"):
        confusion(logits, torch.zeros(5), (3, 3))


def test_agreement_and_activation_distance_by_hand():
    a, b = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log(), torch.tensor([[1.0, 1.0001], [1.0, 3.0]]).log()
    assert agreement(a, b) == 0.5
    assert activation_distance(a, b) == pytest.approx(0.5 * 0.25 * math.sqrt(2), abs=1e-4)
    with pytest.raises(InputError, match=r"\[2, 2\] and \[0, 2\]"):
        agreement(a, a[:0])
    with pytest.raises(InputError, match="at least one"):
        activation_distance(a[:0], a[:0])


def test_features_by_hand():
    own = features(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([1]))[0]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert own.tolist() == pytest.approx([math.log(4), entropy, 0.75])


def populations(confidence, seed=0, n=200):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    return torch.randn(n, 4, generator=generator) + confidence * torch.eye(4)[labels], labels


def test_population_attack_finds_members_and_nothing_among_strangers():
    told = population_attack(*populations(4.0), *populations(1.0, seed=1))
    assert told.threshold_auc > 0.85 and told.logistic_auc > 0.85
    none = population_attack(*populations(1.0), *populations(1.0, seed=2))
    assert abs(none.threshold_auc - 0.5) < 0.08 and abs(none.logistic_auc - 0.5) < 0.1


def test_regression_finds_what_the_threshold_misses():
    """Members of higher *and* of lower confidence about wrong labels: the loss alone points the other way."""
    member, labels = populations(5.0)
    wrong = (labels + 1) % 4
    found = population_attack(member, wrong, *populations(0.5, seed=3))
    assert found.threshold_auc < 0.3 < 0.85 < found.logistic_auc


def test_too_few_samples_to_cross_validate_are_refused():
    logits, labels = populations(1.0)
    with pytest.raises(InputError, match="at least 5 samples on each side .* 4 forgotten and 200 unseen"):
        population_attack(logits[:4], labels[:4], logits, labels)
