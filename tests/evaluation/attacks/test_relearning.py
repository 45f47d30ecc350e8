import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from amnesiac.errors import InputError
from amnesiac.evaluation.attacks import Relearning, relearn_curve, relearn_ratio, relearn_steps, steps_to


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def one_hot(label, strength):
    """A model that answers `label` to everything, with logit `strength`."""
    bias = torch.zeros(3)
    bias[label] = strength
    return {"1.weight": torch.zeros(3, 4), "1.bias": bias}


INPUTS, LABELS = torch.zeros(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)  # only the bias can learn


def test_steps_by_hand():
    """Gradient descent on the bias, repeated here by hand."""
    bias, steps = torch.tensor([0.0, 2.0, 0.0]), 0
    while float(functional.cross_entropy(bias[None], LABELS[:1])) > 0.3:
        bias = bias - 0.5 * (bias.softmax(0) - torch.tensor([1.0, 0.0, 0.0]))
        steps += 1
    how = Relearning(0.3, lr=0.5, batch_size=2)
    assert steps > 5 and relearn_steps(model(), one_hot(1, 2.0), INPUTS, LABELS, how) == steps


def test_a_residue_is_relearnt_faster_and_the_limit_holds():
    how = Relearning(0.2, lr=0.2, max_steps=100)
    hidden, fresh, pushed = (relearn_steps(model(), one_hot(0, s), INPUTS, LABELS, how) for s in (1.0, 0.0, -2.0))
    assert 0 < hidden < fresh < pushed < 100
    assert relearn_ratio(hidden, fresh) < 1 < relearn_ratio(pushed, fresh)
    assert relearn_steps(model(), one_hot(0, 9.0), INPUTS, LABELS, how) == 0
    assert relearn_steps(model(), one_hot(1, 50.0), INPUTS, LABELS, how) == 100


def test_a_curve_holds_the_steps_to_every_target():
    how = Relearning(0.0, lr=0.2, max_steps=60, batch_size=4)
    curve = relearn_curve(model(), one_hot(1, 2.0), INPUTS, LABELS, how)
    assert curve.shape == (60,)
    for target in (5.0, 1.0, 0.4, 0.0):
        again = Relearning(target, lr=0.2, max_steps=60, batch_size=4)
        assert steps_to(curve, target) == relearn_steps(model(), one_hot(1, 2.0), INPUTS, LABELS, again)


def test_ratio_where_nothing_is_left_to_learn():
    assert relearn_ratio(0, 0) == 1.0 and relearn_ratio(3, 0) == math.inf and relearn_ratio(0, 4) == 0.0


def test_the_model_passed_in_stays_and_no_samples_are_refused():
    own = model()
    before = own[1].bias.detach().clone()
    relearn_steps(own, one_hot(1, 2.0), INPUTS, LABELS, Relearning(0.3))
    assert torch.equal(own[1].bias, before)
    with pytest.raises(InputError, match="empty forget set can't be learnt again"):
        relearn_steps(own, one_hot(1, 2.0), INPUTS[:0], LABELS[:0], Relearning(0.3))
