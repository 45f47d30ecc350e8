"""Each method against a plain twin: a loop of one-by-one backward passes, or the undone updates themselves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amnesiac.capture.coordinates import subset
from amnesiac.seeding import numpy_generator
from amnesiac.settings import OptimizerSettings, ScheduleSettings, UnlearningSettings
from amnesiac.training.optimizers import learning_rate
from amnesiac.unlearning.unlearn import unlearn

DELTA = UnlearningSettings(method="per-sample-delta")
SUBSET = UnlearningSettings(method="per-sample-subset")
DESCRIBED = UnlearningSettings(method="per-sample-subset", scale="one")
BATCHES = UnlearningSettings(method="amnesiac-batch")
PARTIAL = UnlearningSettings(method="layerwise-partial")
FRACTION = 0.3


def smooth():
    """Samples don't meet in this one, so that a sample's share is the gradient of its own loss."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Conv2d(1, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 3)
        return nn.Sequential(*layers)


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def twin(run):
    """What each sample added to the weights `[n, P]`: as the optimiser applied it, times the rate, and as it is.

    In float64, one sample and one step at a time. An optimiser that is linear in its gradients (Adam with its scaling
    as it was) treats the sum of samples like the samples one after another, so each gets a momentum of its own.
    """
    training, n = run.spec.training, len(run.data.labels)
    model, setting = smooth().double(), training.optimizer
    parameters = list(model.parameters())
    inputs, size = run.data.inputs.double(), len(flat(parameters))
    momentum, applied, scaled, raw = (torch.zeros(n, size, dtype=torch.float64) for _ in range(4))
    second, count = torch.zeros(size, dtype=torch.float64), 0
    for epoch in range(training.epochs):
        order = numpy_generator(run.spec.seed, "order", epoch).permutation(n)
        batches = [order[k : k + training.batch_size] for k in range(0, n, training.batch_size)]
        for k, batch in enumerate(batches):
            position = epoch + k / len(batches)
            rate = learning_rate(setting.lr, training.schedule, position, training.epochs)
            gradients = torch.zeros(n, size, dtype=torch.float64)
            for row in batch.tolist():
                loss = F.cross_entropy(model(inputs[row : row + 1]), run.data.labels[row : row + 1]) / len(batch)
                gradients[row] = flat(torch.autograd.grad(loss, parameters))
            count += 1
            if setting.name == "adam":
                (b1, b2), mean = setting.betas, gradients.sum(0)
                momentum = b1 * momentum + (1 - b1) * gradients
                second = b2 * second + (1 - b2) * mean**2
                scaling = 1 / ((second / (1 - b2**count)).sqrt() + setting.eps)
                move = rate / (1 - b1**count) * momentum * scaling
            else:
                momentum = setting.momentum * momentum + gradients
                move = rate * (gradients + setting.momentum * momentum if setting.nesterov else momentum)
            applied, scaled, raw = applied + move, scaled + rate * gradients, raw + gradients
            with torch.no_grad():
                moved, start = move.sum(0), 0
                for p in parameters:
                    p -= moved[start : start + p.numel()].reshape(p.shape)
                    start += p.numel()
    torch.testing.assert_close(
        flat(parameters).float(), flat(run.weights[k] for k in run.parameters), rtol=1e-4, atol=1e-5
    )
    return {"delta": applied, "subset-lr": scaled, "subset-one": raw}


def row(ledger, name, position):
    return flat(ledger.total(name, [position]).values())


def close(ours, theirs):
    """Both are sums over float32 gradients of one trajectory."""
    return float((ours - theirs).norm()) <= 1e-4 * float(theirs.norm())


OPTIMIZERS = {
    "sgd": OptimizerSettings(lr=0.05),
    "momentum": OptimizerSettings(lr=0.02, momentum=0.9),
    "nesterov": OptimizerSettings(lr=0.02, momentum=0.9, nesterov=True),
    "adam": OptimizerSettings(name="adam", lr=0.003, eps=1e-3),
}


@pytest.fixture(scope="module", params=OPTIMIZERS)
def compared(request, train_run, tmp_path_factory):
    """A run and its twin's contributions."""
    schedule = ScheduleSettings(name="step", every=1, gamma=0.5)
    run = train_run(tmp_path_factory.mktemp("run"), OPTIMIZERS[request.param], schedule, build=smooth)
    return run, twin(run)


def test_per_sample_delta_is_each_samples_part_of_the_updates(compared):
    run, contributions = compared
    for position, expected in enumerate(contributions["delta"]):
        assert close(row(run.ledger, "delta", position), expected), position
    forget = [1, 4, 20]
    moved = unlearn(DELTA, run.ledger, run.weights, forget).weights
    change = flat(moved[k].double() - run.weights[k].double() for k in run.parameters)
    assert close(change, contributions["delta"][forget].sum(0))


@pytest.mark.parametrize(("settings", "name"), [(SUBSET, "subset-lr"), (DESCRIBED, "subset-one")])
def test_per_sample_subset_adds_the_gradients_on_its_own_coordinates(compared, settings, name):
    run, contributions = compared
    assert unlearn(settings, run.ledger, run.weights, [0]).ledger == name
    for position, expected in enumerate(contributions[name]):
        ours = row(run.ledger, name, position)
        kept = ours != 0
        assert close(ours[kept], expected[kept]), position


def changed(run, settings, forget):
    """Names of the coordinates that a deletion changes, by parameter."""
    after = unlearn(settings, run.ledger, run.weights, forget).weights
    return {k: set(torch.nonzero((after[k] != run.weights[k]).flatten()).flatten().tolist()) for k in run.parameters}


def expected_counts(run):
    return {k: int(run.weights[k].numel() * FRACTION) for k in run.parameters}


@pytest.mark.parametrize("settings", [SUBSET, DESCRIBED])
def test_subset_changes_that_many_coordinates_of_each_tensor(compared, settings):
    run, _ = compared
    one, other = changed(run, settings, [3]), changed(run, settings, [4])
    assert {k: len(v) for k, v in one.items()} == {k: len(v) for k, v in other.items()} == expected_counts(run)
    assert one["4.weight"] != other["4.weight"]
    assert one["0.weight"] != other["0.weight"]


def test_subset_coordinates_are_the_same_on_a_new_run_and_in_both_scalings(compared, train_run, tmp_path):
    run, _ = compared
    again = train_run(tmp_path, OptimizerSettings(lr=0.01), build=smooth)
    for position in (0, 22):
        assert changed(run, SUBSET, [position]) == changed(again, SUBSET, [position])
        assert changed(run, SUBSET, [position]) == changed(run, DESCRIBED, [position])


def test_coordinates_belong_to_the_sample_not_to_its_row(train_run, tmp_path):
    """Capturing one class only gives the samples other rows of the store, but the same coordinates and values."""
    whole, part = train_run(tmp_path / "a", build=smooth), train_run(tmp_path / "b", build=smooth, classes=(2,))
    assert part.ledger.sample_rows([20]) != whole.ledger.sample_rows([20])
    assert changed(part, SUBSET, [20]) == changed(whole, SUBSET, [20])
    torch.testing.assert_close(
        part.ledger.total("subset-lr", part.ledger.sample_rows([20]))["4.weight"],
        whole.ledger.total("subset-lr", whole.ledger.sample_rows([20]))["4.weight"],
    )


def test_undoing_every_batch_returns_to_the_start(trained):
    back = unlearn(BATCHES, trained.ledger, trained.weights, range(len(trained.data.labels)))
    assert back.rows == 3 * 4
    for name in trained.parameters:
        assert not torch.allclose(trained.weights[name], trained.initial[name], atol=1e-3)
        torch.testing.assert_close(back.weights[name], trained.initial[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [BATCHES, PARTIAL])
def test_the_batches_that_held_a_forgotten_sample_are_undone(trained, settings):
    forget, n, size = [4, 19], len(trained.data.labels), trained.spec.training.batch_size
    steps, step = [], 0
    for epoch in range(trained.spec.training.epochs):
        order = numpy_generator(trained.spec.seed, "order", epoch).permutation(n)
        for start in range(0, n, size):
            if np.isin(order[start : start + size], forget).any():
                steps.append(step)
            step += 1
    result = unlearn(settings, trained.ledger, trained.weights, forget)
    total = trained.ledger.total(result.ledger, steps)
    assert 0 < len(steps) == result.rows < step
    for name in trained.parameters:
        assert torch.equal(result.weights[name], (trained.weights[name].double() + total[name]).float())


def test_partial_changes_the_same_coordinates_whatever_is_forgotten(trained):
    one, other = changed(trained, PARTIAL, [3]), changed(trained, PARTIAL, [4, 9, 20])
    assert one == other
    assert {k: len(v) for k, v in one.items()} == expected_counts(trained)


def test_partial_is_the_whole_update_on_its_coordinates(trained):
    whole, part = (unlearn(s, trained.ledger, trained.weights, [3]).weights for s in (BATCHES, PARTIAL))
    for name, places in changed(trained, PARTIAL, [3]).items():
        index = sorted(places)
        assert torch.equal(part[name].flatten()[index], whole[name].flatten()[index])


def test_coordinates_are_drawn_as_they_always_were():
    """They aren't stored: another draw (of another NumPy, say) would add a row's values to the wrong parameters."""
    assert subset([(4, 5), (3,)], 0.4, 7).tolist() == [2, 3, 7, 8, 12, 13, 15, 17, 20]
    assert subset([(4, 5), (3,)], 0.4, "updates").tolist() == [1, 2, 3, 4, 6, 9, 17, 18, 22]
