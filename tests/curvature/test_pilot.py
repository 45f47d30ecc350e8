"""The choice of kappa against the rule as it is documented, written out for one kappa at a time."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.capture.attribution import rate_weights
from amnesiac.capture.spool import read_spool
from amnesiac.curvature import Kappa, Pilot, Probe, measure, settle
from amnesiac.curvature.matrices import to_flat
from amnesiac.curvature.pilot import FEW, HIDDEN, OUTPUT, walk
from amnesiac.evaluation import kl, predict
from amnesiac.ledger.visits import StepWeights, segment_sums, visit_table
from amnesiac.models.files import load_weights
from amnesiac.progress import silent
from amnesiac.seeding import numpy_generator
from amnesiac.settings import CaptureSettings, CurvatureSettings, OptimizerSettings, SettledSettings

N, CLASSES, EPOCHS, BATCH = 160, 4, 6, 16
OPTIMIZERS = {"momentum": OptimizerSettings(lr=0.05, momentum=0.9), "adam": OptimizerSettings(name="adam", lr=0.01)}


def factory():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, CLASSES))


def data_of(small_data):
    """Classes in corners that overlap a little, so that a few samples matter."""
    plain = small_data(N, CLASSES, (1, 4, 4))
    generator = torch.Generator().manual_seed(9)
    centres = torch.randn(CLASSES, 1, 4, 4, generator=generator)
    noise = plain.inputs - plain.labels[:, None, None, None]
    return replace(plain, inputs=0.7 * centres[plain.labels] + 0.8 * noise)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def run(request, small_run, small_data, tmp_path_factory):
    """A trained run."""
    capture = CaptureSettings(methods=("settled",), curvature=CurvatureSettings(smallest_sample=80))
    return small_run(
        tmp_path_factory.mktemp("run"), factory, data_of(small_data), capture,
        optimizer=OPTIMIZERS[request.param], epochs=EPOCHS, batch=BATCH,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pilot(run):
    """The pilot that sealing made, from the same spool and snapshots."""
    snapshots = [load_weights(run.scratch / "snapshots" / f"epoch-{epoch}.safetensors") for epoch in range(EPOCHS)]
    probe = Probe(factory, snapshots, run.data.inputs, run.data.labels, CLASSES, 80, 2048, run.spec.seed)
    bounds = range(0, N // BATCH * EPOCHS + 1, N // BATCH)
    curvature = measure(run.scratch / "spool", probe, bounds, run.capture.curvature.clip_quantile)
    with read_spool(run.scratch / "spool") as spool:
        table, weights = visit_table(spool.index), StepWeights(rate_weights(spool.layout.rule, spool.steps))

        def sums(samples):
            return segment_sums(spool, table, weights, samples, curvature.bounds)

        yield Pilot(probe, curvature, run.weights, sums, table.samples)


def deleted(pilot, rows, kappa, forgotten=None):
    """A model from which some samples were taken."""
    state = {name: value.clone() for name, value in pilot.final.items()}
    for k, (block, own) in enumerate(zip(pilot.curvature.blocks, pilot.sums(rows), strict=True)):
        change = to_flat(block, settle(pilot.curvature, k, own, kappa, forgotten)).flatten()
        for name in block.parameters:
            state[name] += change[: state[name].numel()].reshape(state[name].shape)
            change = change[state[name].numel() :]
    model = factory()
    model.load_state_dict(state)
    return model


def logits(model, pilot, rows):
    return predict(model, pilot.probe.inputs[torch.from_numpy(rows)])


def few_trials(pilot, value):
    """J, damage and norm of a kappa, means over three pilots:

    J(kappa) = KL(kappa = sqrt 2 || kappa) on a pilot's samples + KL(original || kappa) on the others; the latter is
    the damage
    """
    generator, found = numpy_generator(pilot.probe.seed, "pilots"), []
    original = deleted(pilot, np.array([], np.int64), Kappa(1.0, 1.0))
    for _ in range(3):
        drawn = np.sort(generator.choice(pilot.candidates, N // 10, replace=False))
        others = np.setdiff1d(np.arange(N), drawn)
        generator.choice(others, len(others), replace=False)  # all of the others, as there are fewer than 300
        model, target = deleted(pilot, drawn, Kappa(value, value)), deleted(pilot, drawn, Kappa(1.4, 1.4))
        damage = kl(*(logits(own, pilot, others) for own in (original, model)))
        forgetting = kl(*(logits(own, pilot, drawn) for own in (target, model)))
        found.append((forgetting + damage, damage, distance(model, original)))
    return np.mean(found, 0)


def distance(one, other):
    theirs = other.state_dict()
    return float(sum((value - theirs[name]).square().sum() for name, value in one.state_dict().items()) ** 0.5)


def class_trials(pilot, kappa):
    """J summed over the rule's three classes and the mean share of samples still predicted as the deleted class."""
    labels = pilot.probe.labels.numpy()
    original, scores, left = deleted(pilot, np.array([], np.int64), kappa), [], []
    for label in numpy_generator(pilot.probe.seed, "class pilots").permutation(CLASSES)[:3].tolist():
        rows, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        model, score = deleted(pilot, rows, kappa, torch.eye(CLASSES)[label]), 0.0
        for shown in (rows, others):
            target = logits(original, pilot, shown)
            target[:, label] = -1e9
            score += kl(target, logits(model, pilot, shown))
        scores.append(score)
        left.append(float((logits(model, pilot, rows).argmax(1) == label).float().mean()))
    return float(np.mean(scores)), float(np.mean(left))


def test_sealing_chose_what_the_rule_chooses_and_chooses_it_again(run, pilot):
    stored = run.manifest.entries["settled"].codec["settling"]
    few, whole = pilot.few(None, silent), pilot.whole(None, silent)
    assert (few, whole) == (pilot.few(None, silent), pilot.whole(None, silent))
    assert (stored["few"], stored["whole"]) == (asdict(few), asdict(whole))
    assert few.kappa.output == few.kappa.hidden
    assert few.kappa.output in FEW
    assert whole.kappa.output in OUTPUT
    assert whole.kappa.hidden in HIDDEN


def test_few_minimises_the_documented_score(pilot):
    found = {value: few_trials(pilot, value) for value in FEW}
    choice, scores = pilot.few(None, silent), {value: own[0] for value, own in found.items()}
    assert choice.kappa.output == min(scores, key=scores.get)
    assert max(scores.values()) > 1.2 * min(scores.values())
    assert [choice.damage, choice.norm] == pytest.approx(found[choice.kappa.output][1:].tolist(), rel=1e-3)


def test_whole_is_the_best_of_its_neighbours_that_leave_nobody_predicted_as_the_class(pilot):
    """The last turn searches the output layer: of its kappas, those that leave at most 1 % (or least) are allowed."""
    chosen = pilot.whole(None, silent).kappa
    found = {value: class_trials(pilot, Kappa(value, chosen.hidden)) for value in OUTPUT}
    limit = max(0.01, min(left for _, left in found.values()))
    assert found[chosen.output][1] <= limit
    assert limit <= 0.01
    assert found[chosen.output][0] == min(score for score, left in found.values() if left <= limit)
    assert max(left for _, left in found.values()) > limit or max(own[0] for own in found.values()) > 1.1 * min(
        own[0] for own in found.values()
    )


class Scripted(Pilot):
    """A larger kappa always scores better, but from 0.7 on the output layer leaves 5 % of the class."""

    def _class_pilot(self, *_):
        return lambda kappa: (1 / kappa.output + 1 / kappa.hidden, 0.05 if kappa.output >= 0.7 else 0.01, 0.3, 2.0)


def test_a_better_score_doesnt_excuse_what_is_left_of_a_class(pilot):
    fields = (pilot.probe, pilot.curvature, pilot.final, pilot.sums, pilot.candidates)
    choice = Scripted(*fields).whole(None, silent)
    assert choice.kappa == Kappa(output=0.5, hidden=16.0)
    assert (choice.damage, choice.norm) == pytest.approx((0.3, 2.0))


def test_a_given_kappa_is_used_for_both_and_tried_all_the_same(pilot, small_run, small_data, tmp_path):
    few, whole = pilot.few(1.25, silent), pilot.whole(1.25, silent)
    assert few.kappa == whole.kappa == Kappa(1.25, 1.25)
    assert [few.damage, few.norm] == pytest.approx(few_trials(pilot, 1.25)[1:].tolist(), rel=1e-3)
    capture = CaptureSettings(methods=("settled",), settled=SettledSettings(kappa=1.25))
    made = small_run(tmp_path, factory, data_of(small_data), capture, epochs=2)
    stored = made.manifest.entries["settled-class"].codec["settling"]
    assert [stored[form]["kappa"] for form in ("few", "whole")] == [{"output": 1.25, "hidden": 1.25}] * 2
    change = sum(float((made.weights[k] - made.initial[k]).square().sum()) for k in made.parameters)
    assert stored["path"] == pytest.approx(change**0.5, rel=1e-5)


@pytest.mark.parametrize("best", range(9))
def test_a_walk_ends_at_the_best_of_a_valley_without_trying_all(best):
    tried = []

    def score(value):
        tried.append(value)
        return abs(FEW.index(value) - best)

    assert walk(FEW, 1.4, score) == FEW[best]
    assert len(tried) == len(set(tried)) == min(9, abs(best - 3) + 3 - (best in (0, 8)))


def test_a_walk_stays_where_neighbours_are_no_better():
    assert walk(FEW, 1.4, lambda value: 0.0) == 1.4
    assert walk(FEW, 1.4, lambda value: 5.0 if value in (1.0, 2.0) else float(value > 1.4)) == 1.4


def test_a_wide_model_walks_to_a_kappa_none_of_whose_neighbours_is_better(pilot, monkeypatch):
    exhaustive = pilot.few(None, silent)
    monkeypatch.setattr("amnesiac.curvature.pilot.WIDE", 0)
    tried = []
    walked = pilot.few(None, lambda *_: tried.append(1))
    place = FEW.index(walked.kappa.output)
    scores = {k: few_trials(pilot, FEW[k])[0] for k in (place - 1, place, place + 1) if 0 <= k < len(FEW)}
    assert min(scores, key=scores.get) == place
    assert len(tried) <= len(FEW)
    if walked.kappa == exhaustive.kappa:
        assert walked == exhaustive
