"""Training one member and looking at it: logits on the audit's samples; its weights are not kept."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from amnesiac.auditing.setup import ForgetSet, Member, Setup, shown
from amnesiac.evaluation.attacks.relearning import Relearning, relearn_curve
from amnesiac.evaluation.logits import predict
from amnesiac.ledger import open_ledger
from amnesiac.settings import UnlearningSettings
from amnesiac.training import CapturePlan, retrain_without, train_with_capture
from amnesiac.training.spec import StateDict
from amnesiac.unlearning import ledgers_for, unlearn

RELEARN_STEPS = 60
Content = dict[str, Tensor]


def train_member(setup: Setup, member: Member, scratch: Path) -> Content:
    """What a member's file holds. `scratch` is for spool and ledger, and is removed again.

        {model}/{set}/{forget|retain|test}   logits float32 [n, classes]
        {model}/{set}/relearn                losses float64 [steps] (evaluation.attacks.relearning)

    model: "original" and each method, or "retrained". Of left-out members "probability" [n] of each training sample's
    label and "left_out" bool [n].
    """
    if member.kind == "left-out":
        return _left_out(setup, member)
    if member.kind == "retrained":
        return _retrained(setup, member)
    return _captured(setup, member, scratch)


def _left_out(setup: Setup, member: Member) -> Content:
    result = retrain_without(setup.spec(member.seed), setup.factory(member.seed), setup.train, member.left_out)
    model = setup.factory(member.seed)()
    model.load_state_dict(result.weights)
    p = predict(model, setup.train.inputs).softmax(1)
    left_out = torch.zeros(len(setup.train), dtype=torch.bool)
    left_out[list(member.left_out)] = True
    return {"probability": p.gather(1, setup.train.labels[:, None])[:, 0], "left_out": left_out}


def _retrained(setup: Setup, member: Member) -> Content:
    (forget,) = member.sets
    setup = setup.with_labels_of(forget)
    found = retrain_without(setup.spec(member.seed), setup.factory(member.seed), setup.train, forget.positions)
    return _looked_at(setup, member, forget, {"retrained": found.weights})


def _captured(setup: Setup, member: Member, scratch: Path) -> Content:
    """Train once, forget every set with every method from there."""
    own = setup.with_labels_of(member.sets[0])
    forgotten = sorted({position for forget in member.sets for position in forget.positions})
    found: Content = {}
    with _cleared(scratch):
        plan = CapturePlan(
            setup.capture, ledgers_for(setup.capture), own.train.sample_ids, own.train.subject_ids,
            scratch / "ledger", scratch / "spool", only=forgotten,
        )  # fmt: skip
        result, manifest = train_with_capture(own.spec(member.seed), own.factory(member.seed), own.train, plan)
        ledger = open_ledger(plan.destination, run_id=manifest.run_id)
        for forget in member.sets:
            models: dict[str, StateDict] = {"original": result.weights}
            for method in setup.methods:
                settings = UnlearningSettings(method=method)
                models[method] = unlearn(settings, ledger, result.weights, forget.positions).weights
            found |= _looked_at(own, member, forget, models)
    return found


def _looked_at(setup: Setup, member: Member, forget: ForgetSet, models: Mapping[str, StateDict]) -> Content:
    samples, found = shown(setup, member, forget), Content()
    optimizer = setup.training.optimizer
    how = Relearning(0.0, optimizer.lr if optimizer.name == "sgd" else 0.05, max_steps=RELEARN_STEPS)
    model = setup.factory(member.seed)()
    for name, weights in models.items():
        model.load_state_dict(weights)
        for where, (inputs, _) in samples.items():
            found[f"{name}/{forget.name}/{where}"] = predict(model, inputs)
        found[f"{name}/{forget.name}/relearn"] = relearn_curve(model, weights, *samples["forget"], how)
    return found


@contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """An empty folder, gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
