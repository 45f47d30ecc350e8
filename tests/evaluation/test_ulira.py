import math

import pytest
import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import ulira
from amnesiac.evaluation.ulira import _fits, _gaussians, _halves, _log_density


def ensembles(models, n, shift, seed, offset=0.6):
    """Margins with a mean of each example and an offset of each model, so that pairs of a model hang together."""
    generator = torch.Generator().manual_seed(seed)
    means = 4 * torch.randn(n, generator=generator)
    sides = []
    for moved in (shift, 0.0):
        own = offset * torch.randn(models, 1, generator=generator)
        sides.append(means + own + torch.randn(models, n, generator=generator) + moved)
    return sides


def test_gaussians_and_ratio_by_hand():
    margins = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 2.0]], dtype=torch.float64)
    mean, variance = _gaussians(margins, torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(mean, torch.tensor([[3.0, 2.0], [7 / 3, 2 / 3]], dtype=torch.float64))
    # both examples' variance is 4 (pooled: few models); the second draw's: of 1, 1, 5 and 0, 0, 2
    pooled = (16 / 3 + 4 / 3) / 2
    torch.testing.assert_close(variance, torch.tensor([[4.0, 4.0], [pooled, pooled]], dtype=torch.float64))
    density = _log_density(torch.tensor([[5.0, 2.0]]).double(), mean, variance)
    assert float(density[0, 0, 0]) == pytest.approx(-0.5 * 4 / 4 - 0.5 * math.log(2 * math.pi * 4))


def test_finds_what_is_there_and_its_interval_excludes_guessing():
    found = ulira(*ensembles(16, 40, 2.0, 0))
    # the best attack knows the shift of 2 sd (1.72 of the sum of both spreads): Phi(2 / sqrt(2 * 1.36)) = .887
    assert 0.83 < found.auc < 0.93
    assert found.auc_low < found.auc < found.auc_high and found.auc_low > 0.5 and not found.passes
    assert 0.02 < found.tpr_at_1_fpr < 0.5 and found.tpr_at_01_fpr <= found.tpr_at_1_fpr
    assert found.models == (16, 16) and found.per_example.shape == (40,)
    assert float(found.per_example.mean()) > 0.83
    assert bool((found.tpr.diff() >= -1e-12).all()) and float(found.tpr[-1]) == 1.0


def test_over_forgetting_is_found_as_well():
    assert ulira(*ensembles(16, 40, -2.0, 1)).auc_low > 0.5


def test_another_spread_is_found_without_any_shift():
    a, b = ensembles(24, 40, 0.0, 2, offset=0.0)
    assert ulira(3 * (a - b.mean(0)) + b.mean(0), b, bootstrap=100).auc > 0.7


def test_is_at_one_half_where_there_is_nothing_and_the_interval_says_so():
    found = [ulira(*ensembles(12, 10, 0.0, seed), bootstrap=120, splits=2) for seed in range(40)]
    mean = sum(f.auc for f in found) / len(found)
    assert mean == pytest.approx(0.5, abs=0.025)
    assert sum(f.passes for f in found) >= 35


def test_no_model_is_scored_by_a_fit_on_itself():
    """A held-out model's own value doesn't change the Gaussians that score the others of its half."""
    sides = [side.double() for side in ensembles(8, 5, 0.0, 3)]
    halves = _halves(8, 8, 1, 0)
    once = (torch.ones(1, 8).double(), torch.ones(1, 8).double())
    before = next(_fits(tuple(sides), once, halves)).unlearned.reshape(4, 5)
    held = torch.nonzero(~halves[0][0]).flatten()
    moved = sides[0].clone()
    moved[held[0]] += 100.0
    after = next(_fits((moved, sides[1]), once, halves)).unlearned.reshape(4, 5)
    assert torch.equal(before[1:], after[1:]) and not torch.equal(before[0], after[0])
    assert all(bool((a ^ b).all()) for a, b in zip(*halves, strict=True))


def test_intervals_are_of_models_not_of_pairs():
    """With an offset a model, ten times the examples hardly narrow the interval; without, they do."""
    widths = {}
    for offset in (0.0, 3.0):
        for n in (10, 100):
            found = [ulira(*ensembles(12, n, 0.5, s, offset), bootstrap=150, splits=2) for s in range(6)]
            widths[offset, n] = sum(f.auc_high - f.auc_low for f in found)
    assert widths[0.0, 100] < 0.6 * widths[0.0, 10]
    assert widths[3.0, 100] > 0.7 * widths[3.0, 10]


def test_equal_ensembles_of_constants_are_a_tie():
    found = ulira(torch.ones(4, 3), torch.ones(4, 3), bootstrap=10)
    assert found.auc == 0.5 and found.passes and found.tpr_at_1_fpr == 0.0


def test_the_same_seed_gives_the_same_figures_and_too_few_models_are_refused():
    a, b = ensembles(5, 4, 1.0, 4)
    first, second = (ulira(a, b, bootstrap=20) for _ in range(2))
    assert (first.auc, first.auc_low, first.tpr_high) == (second.auc, second.auc_low, second.tpr_high)
    with pytest.raises(InputError, match="3 and 5 models: at least 4 a side"):
        ulira(a[:3], b)
