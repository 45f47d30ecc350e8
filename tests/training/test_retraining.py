"""Retraining without samples against a slow twin that takes one sample at a time, and capture that changes nothing."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from amnesiac.errors import SettingsError
from amnesiac.ledger import open_ledger
from amnesiac.seeding import numpy_generator
from amnesiac.settings import AugmentSettings, CaptureSettings, OptimizerSettings, ScheduleSettings
from amnesiac.training.batches import augmentation
from amnesiac.training.run import CapturePlan, discard_scratch, retrain_without, train_with_capture
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
TRAININGS = {
    "sgd": {"optimizer": OptimizerSettings(lr=0.1)},
    "momentum, step": {
        "optimizer": OptimizerSettings(lr=0.1, momentum=0.9),
        "schedule": ScheduleSettings(name="step", every=1, gamma=0.5),
    },
    "nesterov, decay, augmented": {
        "optimizer": OptimizerSettings(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05),
        "augment": AugmentSettings(shift=1, flip=True),
    },
    "adam, cosine": {"optimizer": OptimizerSettings(name="adam", lr=0.01), "schedule": ScheduleSettings(name="cosine")},
    "adamw, clipped": {"optimizer": OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1), "clip_norm": 0.1},
}


def torch_optimizer(settings, parameters):
    common = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return torch.optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.nesterov, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name](parameters, **common)


def rate_at(training, epoch, k, steps):
    """The schedules written down once more, for those that the twin meets."""
    if training.schedule.name == "step":
        return training.optimizer.lr * training.schedule.gamma**epoch
    if training.schedule.name == "cosine":
        position = torch.tensor((epoch + k / steps) / training.epochs, dtype=torch.float64)
        return training.optimizer.lr * float(1 + torch.cos(torch.pi * position)) / 2
    return training.optimizer.lr


def moved(image, down, right, flip):
    """Shift with zeros, after mirroring."""
    image = image.flip(2) if flip else image
    result = torch.zeros_like(image)
    height, width = image.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result


def twin(spec, build, data, forget):
    """The whole schedule, one sample at a time, its gradient added up by hand; `forget` is passed over."""
    model, training, n = build(), spec.training, len(data.labels)
    optimizer = torch_optimizer(training.optimizer, model.parameters())
    for epoch in range(training.epochs):
        order = numpy_generator(spec.seed, "order", epoch).permutation(n).tolist()
        draw = numpy_generator(spec.seed, "augmentation", epoch)
        reach = training.augment.shift
        shifts = draw.integers(-reach, reach + 1, (n, 2)).tolist()
        flips = draw.integers(0, 1 + training.augment.flip, (n, 1)).tolist()
        starts = range(0, n, training.batch_size)
        for k, start in enumerate(starts):
            batch = order[start : start + training.batch_size]
            optimizer.param_groups[0]["lr"] = rate_at(training, epoch, k, len(starts))
            total = [torch.zeros_like(p) for p in model.parameters()]
            for row in batch:
                if row in forget:
                    continue
                image = moved(data.inputs[row], *shifts[row], *flips[row])
                loss = F.cross_entropy(model(image[None]), data.labels[row : row + 1]) / len(batch)
                for t, g in zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                    t += g
            for p, t in zip(model.parameters(), total, strict=True):
                p.grad = t
            if training.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
    return dict(model.state_dict())


def distance(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[k] - theirs[k]).abs().max()) for k in ours)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("forget", [[], [2, 3, 10]])
def test_equals_the_slow_twin(name, forget, spec_of, build, data):
    spec = spec_of(**TRAININGS[name])
    assert distance(retrain_without(spec, build, data, forget).weights, twin(spec, build, data, forget)) < 1e-12


def plan_for(folder, data, **capture):
    capture = CaptureSettings(**{"methods": METHODS} | capture)
    ids = [f"s{i}" for i in range(len(data.labels))]
    return CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")


@pytest.mark.parametrize("name", TRAININGS)
def test_capture_changes_nothing(name, spec_of, build, data_of, tmp_path):
    spec, data = spec_of(epochs=3, **TRAININGS[name]), data_of(dtype=torch.float32)
    made = lambda: build(torch.float32)  # noqa: E731
    captured, manifest = train_with_capture(spec, made, data, plan_for(tmp_path, data))
    plain = retrain_without(spec, made, data, [])
    for key, value in plain.weights.items():
        assert torch.equal(captured.weights[key], value), key
        assert torch.equal(captured.initial[key], made().state_dict()[key]), key
    assert not all(torch.equal(plain.weights[k], plain.initial[k]) for k in plain.weights)
    for ours, theirs in zip(captured.history, plain.history, strict=True):
        assert (ours.epoch, ours.loss, ours.accuracy, ours.learning_rate) == (
            theirs.epoch, theirs.loss, theirs.accuracy, theirs.learning_rate,
        )  # fmt: skip
    assert {"samples": 11, "expected": 3, "largest": 3, "steps": 9}.items() <= manifest.visits.items()
    discard_scratch(tmp_path / "scratch")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_what_was_drawn_for_augmentation_is_in_the_ledger(spec_of, build, data_of, tmp_path):
    spec, data = spec_of(epochs=3, augment=AugmentSettings(shift=1, flip=True)), data_of(dtype=torch.float32)
    train_with_capture(spec, lambda: build(torch.float32), data, plan_for(tmp_path, data))
    kept = np.load(io.BytesIO(open_ledger(tmp_path / "ledger").attachment("augmentation.npy")), allow_pickle=False)
    for epoch in range(3):
        assert np.array_equal(kept[epoch], augmentation(spec.training.augment, len(data.labels), spec.seed, epoch))
    assert len(np.unique(kept)) == 3  # -1, 0, 1


def test_momentum_moves_on_where_all_samples_of_a_step_are_left_out(spec_of, build, data):
    spec = spec_of(epochs=1, batch_size=4, optimizer=OptimizerSettings(lr=0.1, momentum=0.9))
    order = numpy_generator(spec.seed, "order", 0).permutation(11).tolist()
    first = retrain_without(spec, build, data, order[4:])  # a gradient in step 1 only; momentum in steps 2 and 3
    start = build()
    loss = F.cross_entropy(start(data.inputs[order[:4]]), data.labels[order[:4]])
    pull = torch.autograd.grad(loss, list(start.parameters()))
    for parameter, gradient, (name, _) in zip(start.parameters(), pull, start.named_parameters(), strict=True):
        expected = parameter.detach() - 0.1 * (1 + 0.9 + 0.81) * gradient
        torch.testing.assert_close(first.weights[name], expected, rtol=0, atol=1e-14)


def test_forgetting_everything_leaves_the_initial_weights(spec_of, build, data):
    result = retrain_without(spec_of(), build, data, range(11))
    assert all(torch.equal(result.weights[k], result.initial[k]) for k in result.weights)
    assert [record.loss for record in result.history] == [0.0, 0.0]


def test_history_and_progress_tell_what_happened(spec_of, build, data):
    told = []
    spec = spec_of(schedule=ScheduleSettings(name="step", every=1, gamma=0.5), optimizer=OptimizerSettings(lr=0.2))
    result = retrain_without(spec, build, data, [], progress=lambda *what: told.append(what))
    assert told == [("retrain", k, 6) for k in range(1, 7)]
    assert [(r.epoch, r.learning_rate) for r in result.history] == [(1, 0.2), (2, 0.1)]
    assert all(r.seconds > 0 and 0 <= r.accuracy <= 1 for r in result.history)


def test_the_first_loss_is_the_mean_over_the_samples(spec_of, build, data):
    spec = spec_of(epochs=1, batch_size=11)
    loss = F.cross_entropy(build()(data.inputs), data.labels)
    record = retrain_without(spec, build, data, []).history[0]
    assert record.loss == pytest.approx(loss.item(), rel=1e-12)


def test_training_leaves_threads_and_random_state_alone(spec_of, build, data):
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    retrain_without(spec_of(threads=threads + 1), build, data, [])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_random_layers_are_reproducible(spec_of, build, data):
    def with_dropout():
        return torch.nn.Sequential(torch.nn.Dropout(0.5), build())

    torch.manual_seed(1)
    first = retrain_without(spec_of(), with_dropout, data, []).weights
    torch.manual_seed(2)
    second = retrain_without(spec_of(), with_dropout, data, []).weights
    other = retrain_without(spec_of(seed=6), with_dropout, data, []).weights
    assert distance(first, second) == 0.0 < distance(first, other)


def test_capturing_a_class_that_nobody_has(spec_of, build, data_of, tmp_path):
    data = data_of(dtype=torch.float32)
    with pytest.raises(SettingsError, match=r"capture\.classes \[7\]: no training sample"):
        train_with_capture(spec_of(), lambda: build(torch.float32), data, plan_for(tmp_path, data, classes=(7,)))
    assert not (tmp_path / "ledger").exists()


def test_capturing_some_classes_expects_rows_of_those_only(spec_of, build, data_of, tmp_path):
    data = data_of(dtype=torch.float32)
    plan = plan_for(tmp_path, data, classes=(1,), methods=("per-sample-delta",))
    _, manifest = train_with_capture(spec_of(), lambda: build(torch.float32), data, plan)
    assert manifest.entries["delta"].rows == int((data.labels == 1).sum())
    assert manifest.residual == {}


def test_the_run_id_names_everything_that_decides_the_bits(spec_of):
    spec, capture = spec_of(), CaptureSettings()
    ids = {
        spec.run_id(), spec.run_id(capture), spec_of(seed=6).run_id(), spec_of(threads=2).run_id(),
        spec.run_id(CaptureSettings(rank=1)), spec_of(clip_norm=1.0).run_id(),
    }  # fmt: skip
    assert len(ids) == 6
    assert spec_of().run_id(CaptureSettings()) == spec.run_id(capture)
    assert len(spec.run_id()) == 16
