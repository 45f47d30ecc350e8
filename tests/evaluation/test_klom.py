import math

import numpy as np
import pytest
import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import klom, klom_quantiles, null_band


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def by_numpy(p_values, q_values):
    """The published code, with NumPy's histogram, whose last bin has its right end."""
    p_values, q_values = (np.clip(v, -100, 100) for v in (p_values, q_values))
    both = np.concatenate([p_values, q_values])
    edges = np.linspace(both.min(), both.max() if both.max() > both.min() else both.min() + 1, 21)
    p, q = (np.histogram(v, edges)[0] / len(v) for v in (p_values, q_values))
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    q = q / q.sum()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def test_by_hand():
    # range 0..20, bins of width 1: p = (1/2 in bin 0, 1/2 in the last), q = (3/4, 1/4): all four bins' maxima count
    found = klom(column(0, 20), column(0, 0, 0, 20))
    assert float(found) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))


def test_a_maximum_of_the_unlearned_alone_is_not_dropped():
    # with bins open to the right the 20 would vanish and KLoM be log 1 = 0
    expected = 0.5 * math.log(0.5 / (1 / (1 + 1e-5))) + 0.5 * math.log(0.5 / (1e-5 / (1 + 1e-5)))
    assert float(klom(column(0, 20), column(0, 0))) == pytest.approx(expected)


def test_margins_are_clipped_first():
    assert float(klom(column(-1e6, 1e6), column(-100, 100))) == 0.0


def test_equals_a_twin_in_numpy():
    generator = torch.Generator().manual_seed(0)
    p = 3 * torch.randn(24, 12, generator=generator, dtype=torch.float64) + 1
    q = 2 * torch.randn(31, 12, generator=generator, dtype=torch.float64)
    expected = [by_numpy(p[:, k].numpy(), q[:, k].numpy()) for k in range(12)]
    assert klom(p, q).tolist() == pytest.approx(expected)


def test_same_histograms_are_at_zero_and_constant_ones_too():
    margins = torch.randn(10, 5, generator=torch.Generator().manual_seed(1))
    assert klom(margins, margins[torch.randperm(10)]).tolist() == pytest.approx([0.0] * 5, abs=1e-12)
    assert klom(torch.ones(4, 2), torch.ones(3, 2)).tolist() == [0.0, 0.0]


def test_the_null_band_holds_another_draw_and_not_a_shifted_one():
    generator = torch.Generator().manual_seed(2)
    draws = [torch.randn(16, 200, generator=generator) for _ in range(3)]
    band = null_band(torch.cat(draws[:2]), splits=40)
    assert band.models == 16
    same, shifted = (klom_quantiles(klom(draws[2] + shift, draws[0]))[2] for shift in (0.0, 1.5))
    assert band.low[2] * 0.95 <= same <= band.high[2] * 1.05
    assert shifted > 1.2 * band.median_high


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match=r"\[4, 2\] and \[4, 3\]: pass \[models, samples\]"):
        klom(torch.ones(4, 2), torch.ones(4, 3))
    with pytest.raises(InputError, match="a model of the ensemble diverged"):
        klom(torch.ones(4, 2), torch.full((4, 2), torch.nan))
    with pytest.raises(InputError, match="at least 4 retrained models, and there are 3"):
        null_band(torch.ones(3, 2))
