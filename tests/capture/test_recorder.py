"""What can't be captured is refused before a weight has changed, and the message names the layer."""

import pytest
import torch
from torch import nn

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool
from amnesiac.errors import InputError, UnsupportedModel, UnsupportedOptimizer


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


class MixesSamples(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (x - x.mean(0)) * self.gain * x.flip(0)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(x)


def one_step(model, tmp_path, x):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        with recorder.batch(list(range(len(x)))):
            model(x).square().sum().backward()
        optimizer.step()
    finally:
        recorder.close()
        assert recorder.spool.steps or all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "shape", "named"),
    [
        (SelfAttention(), (3, 4), "attention"),
        (Tied(), (4,), "'weight' of layer 'two' is shared with layer 'one'"),
        (MixesSamples(), (4,), "'gain' don't add up"),
        (Unused(), (4,), "'spare'"),
        (nn.LSTM(4, 4, batch_first=True), (3, 4), "LSTM"),
    ],
)
def test_refused(model, shape, named, tmp_path):
    torch.manual_seed(0)
    with pytest.raises((UnsupportedModel, AttributeError), match=named):
        one_step(model, tmp_path, torch.randn(5, *shape))


def test_supported_model_is_not_refused(tmp_path):
    one_step(nn.Sequential(nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 2)), tmp_path, torch.randn(5, 4))


def test_nothing_to_train(tmp_path):
    with pytest.raises(UnsupportedModel, match="no trainable parameters"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        Recorder(nn.Linear(2, 2).requires_grad_(False), optimizer, Spool(tmp_path / "spool"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda p: torch.optim.RMSprop(p), "RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), "dampening"),
        (lambda p: torch.optim.SGD([{"params": [q], "lr": 0.1 * k} for k, q in enumerate(p, 1)]), "'lr'"),
    ],
)
def test_refused_optimizers(make, named, tmp_path):
    model = nn.Linear(2, 2)
    with pytest.raises(UnsupportedOptimizer, match=named):
        Recorder(model, make(list(model.parameters())), Spool(tmp_path / "spool"))


def test_a_step_without_a_recorded_batch_is_refused(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(InputError, match="without a recorded mini-batch"):
        optimizer.step()
    recorder.close()
    optimizer.step()


def test_after_closing_the_model_is_as_it_was(tmp_path):
    model = nn.Linear(4, 2)
    one_step(model, tmp_path, torch.randn(3, 4))
    assert not model._forward_hooks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(8), lambda: nn.InstanceNorm2d(8), lambda: nn.GroupNorm(8, 8)])
def test_a_bias_before_a_normalisation_is_not_refused(norm, seed, tmp_path):
    """Its gradient is zero up to rounding, so no relative tolerance of its own can hold."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    recorder = Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), Spool(tmp_path / "spool"))
    try:
        with recorder.batch(range(16)):
            nn.functional.cross_entropy(model(torch.randn(16, 1, 6, 6)), torch.arange(16) % 3).backward()
    finally:
        recorder.close()


def test_positions_outside_the_data_are_refused_at_once(tmp_path):
    model = nn.Linear(2, 2)
    recorder = Recorder(model, torch.optim.SGD(model.parameters(), lr=0.1), Spool(tmp_path / "spool"), samples=3)
    with pytest.raises(InputError, match="rows reach from 0 to 3, and there are 3 samples"), recorder.batch([0, 3]):
        pass
    recorder.close()
