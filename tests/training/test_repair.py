"""Repair trains for as long as it was told, on retained samples alone."""

import pytest
import torch
import torch.nn.functional as F

from amnesiac.seeding import derive_seed, numpy_generator
from amnesiac.settings import OptimizerSettings, RepairSettings, ScheduleSettings
from amnesiac.training.run import repair


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(0.0, 0), (0.3, 1), (0.5, 2), (1.0, 3), (1.34, 4), (2.0, 6), (0.1, 0)],
)
def test_a_fraction_of_an_epoch_takes_that_many_steps(epochs, steps, spec_of, build, data):
    told = []
    result = repair(
        spec_of(), build, build().state_dict(), data, [1], RepairSettings(epochs=epochs),
        progress=lambda *what: told.append(what),
    )  # fmt: skip
    assert [(stage, done) for stage, done, _ in told] == [("repair", k + 1) for k in range(steps)]
    moved = not all(torch.equal(result.weights[k], v) for k, v in build().state_dict().items())
    assert moved == bool(steps)


def test_forgotten_samples_are_never_touched(spec_of, build, data):
    data.inputs[[0, 4, 5]] = torch.nan
    settings = RepairSettings(epochs=2.5)
    clean = repair(spec_of(), build, build().state_dict(), data, [0, 4, 5], settings).weights
    poisoned = repair(spec_of(), build, build().state_dict(), data, [0, 4], settings).weights
    assert all(torch.isfinite(value).all() for value in clean.values())
    assert not all(torch.isfinite(value).all() for value in poisoned.values())


def test_repair_starts_from_the_given_weights_and_leaves_them(spec_of, build, data):
    weights = {k: v + 1.0 for k, v in build().state_dict().items()}
    before = {k: v.clone() for k, v in weights.items()}
    result = repair(spec_of(), build, weights, data, [], RepairSettings(epochs=1.0, lr=1e-9))
    for key, value in before.items():
        assert torch.equal(weights[key], value)
        assert torch.equal(result.initial[key], value)
        torch.testing.assert_close(result.weights[key], value, rtol=0, atol=1e-6)


def test_repair_is_plain_training_in_an_order_of_its_own(spec_of, build, data):
    spec = spec_of(optimizer=OptimizerSettings(lr=0.3, momentum=0.5))
    ours = repair(spec, build, build().state_dict(), data, [3], RepairSettings(epochs=0.67, lr=0.01)).weights
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    order = numpy_generator(derive_seed(spec.seed, "repair"), "order", 0).permutation(11).tolist()
    assert order != numpy_generator(spec.seed, "order", 0).permutation(11).tolist()
    for start in (0, 4):
        rows = [row for row in order[start : start + 4] if row != 3]
        optimizer.zero_grad()
        (F.cross_entropy(model(data.inputs[rows]), data.labels[rows], reduction="sum") / 4).backward()
        optimizer.step()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("schedule", "lr", "rate"),
    [
        (ScheduleSettings(), None, 0.2),
        (ScheduleSettings(name="step", every=1, gamma=0.5), None, 0.1),
        (ScheduleSettings(name="step", every=1, gamma=0.5), 0.03, 0.03),
        (ScheduleSettings(name="cosine"), None, 0.1),
    ],
)
def test_rate_is_constant_and_that_of_the_last_epoch_unless_given(schedule, lr, rate, spec_of, build, data):
    spec = spec_of(epochs=2, optimizer=OptimizerSettings(lr=0.2), schedule=schedule)
    result = repair(spec, build, build().state_dict(), data, [], RepairSettings(epochs=3.4, lr=lr))
    assert [record.learning_rate for record in result.history] == pytest.approx([rate] * 4)
