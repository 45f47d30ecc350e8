"""The original, the unlearned and the retrained model side by side: the content of metrics.json."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from amnesiac.errors import InputError, SpecMismatch
from amnesiac.evaluation.accuracy import accuracy, per_class_accuracy
from amnesiac.evaluation.band import band
from amnesiac.evaluation.divergence import kl, mean_abs_margin_difference, relative_verification_error
from amnesiac.evaluation.logits import predict
from amnesiac.evaluation.membership import membership

ROLES = ("original", "unlearned", "repaired", "retrained")
SETS = ("forget", "retain", "test")
DIVERGENCES = (
    "kl_forget",
    "kl_test",
    "margin_forget",
    "margin_retain",
    "margin_test",
    "relative_verification_error",
)

_OTHER = "retrained with other seed"

Metrics = dict[str, Any]
Samples = tuple[torch.Tensor, torch.Tensor]
Weights = Mapping[str, torch.Tensor]
Logits = dict[str, torch.Tensor]


def compare(
    model: nn.Module,
    weights: Mapping[str, Weights],
    sets: Mapping[str, Samples],
    class_names: Sequence[str],
    batch_size: int = 1024,
    others: Sequence[Weights] = (),
) -> Metrics:
    """Compare the models that `weights` holds by role: unlearned, retrained, optionally original and repaired.

    "original" is what doing nothing would leave: the trained model, or the version published before. Without it (both
    are withdrawn) there is no relative verification error.

    `model` gives the architecture and stays as it is. `sets` holds (inputs `[n, c, h, w]`, labels `[n]`) as
    "forget", "retain" and "test". The result is exactly what JSON can hold, None where a value isn't defined:

        {role: {"forget_accuracy", "retain_accuracy", "test_accuracy",
                "per_class_test_accuracy": {class: value},
                "kl_forget", "kl_test", "margin_forget", "margin_retain", "margin_test",
                "relative_verification_error", "membership_auc"},
         the unlearned model's KL, margins and verification error once more at the top,
         "samples": {"forget", "retain", "test"},
         "band": what retrainings with other seeds differ by (`band`), if `others` holds their weights}

    kl_* is KL(retrained || model) in nats, margin_* the mean |margin difference| to the retrained model,
    membership_auc the population attack's (`membership`).

    Raises InputError for a missing or unknown role or set and for logits that aren't finite, SpecMismatch for
    weights that don't fit the model.
    """
    _check(weights, sets, class_names)
    weights = {**weights, **{f"{_OTHER} {k}": each for k, each in enumerate(others, 1)}}
    logits = {
        role: _all_logits(_loaded(model, weights[role], role), sets, role, batch_size)
        for role in (*ROLES, *(role for role in weights if role.startswith(_OTHER)))
        if role in weights
    }
    trained = [name for name, _ in model.named_parameters()]
    errors = {
        role: relative_verification_error(weights[role], weights["retrained"], weights["original"], trained)
        if "original" in weights
        else math.inf
        for role in logits
    }
    measured: Metrics = {
        role: _measure(own, logits["retrained"], sets, class_names, errors[role]) for role, own in logits.items()
    }
    metrics = {role: own for role, own in measured.items() if role in ROLES}
    reseeded = [own for role, own in measured.items() if role not in ROLES]
    summary = {name: metrics["unlearned"][name] for name in DIVERGENCES}
    spread = {"band": band(metrics["retrained"], reseeded)} if reseeded else {}
    return {**metrics, **summary, "samples": {name: len(sets[name][1]) for name in SETS}, **spread}


def roles_in(metrics: Mapping[str, Any]) -> list[str]:
    """The roles that were compared, in the order in which they are shown."""
    return [role for role in ROLES if role in metrics]


def classes_in(metrics: Mapping[str, Any]) -> list[str]:
    """The class names in order: numbered ones by number, because a JSON file with sorted keys has 10 before 2."""
    names = list(metrics["retrained"]["per_class_test_accuracy"])
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _measure(
    own: Logits, retrained: Logits, sets: Mapping[str, Samples], class_names: Sequence[str], error: float
) -> dict[str, Any]:
    labels = {name: sets[name][1] for name in SETS}
    some = [name for name in SETS if len(labels[name])]
    accuracies = {name: accuracy(own[name], labels[name]) for name in some}
    divergences = {name: kl(retrained[name], own[name]) for name in some}
    margins = {name: mean_abs_margin_difference(own[name], retrained[name], labels[name]) for name in some}
    attack = membership(own["forget"], labels["forget"], own["test"], labels["test"]) if "forget" in some else None
    per_class = per_class_accuracy(own["test"], labels["test"], len(class_names))
    return {
        **{f"{name}_accuracy": accuracies.get(name) for name in SETS},
        "per_class_test_accuracy": dict(zip(class_names, per_class, strict=True)),
        **{f"kl_{name}": divergences.get(name) for name in ("forget", "test")},
        **{f"margin_{name}": margins.get(name) for name in SETS},
        # JSON has no infinity; it arises only where original and retrained are the same model, or there is no original.
        "relative_verification_error": error if math.isfinite(error) else None,
        "membership_auc": attack.auc if attack else None,
    }


def _loaded(model: nn.Module, weights: Weights, role: str) -> nn.Module:
    model = copy.deepcopy(model)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise SpecMismatch(f"the weights of the {role} model don't fit the model of the settings: {error}") from error
    return model


def _all_logits(model: nn.Module, sets: Mapping[str, Samples], role: str, batch_size: int) -> Logits:
    return {name: _finite(predict(model, sets[name][0], batch_size), role, name) for name in SETS}


def _finite(logits: torch.Tensor, role: str, name: str) -> torch.Tensor:
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise InputError(
            f"the {role} model's logits aren't finite on {bad} of {len(logits)} samples of the {name} set: "
            "its weights diverged; lower the learning rate or choose another unlearning method"
        )
    return logits


def _check(weights: Mapping[str, Weights], sets: Mapping[str, Samples], class_names: Sequence[str]) -> None:
    missing = [role for role in ("unlearned", "retrained") if role not in weights]
    unknown = [role for role in weights if role not in ROLES]
    if missing or unknown:
        raise InputError(f"roles are {', '.join(ROLES)}: missing {missing}, unknown {unknown}")
    if set(sets) != set(SETS):
        raise InputError(f"the sets must be {', '.join(SETS)}, and {sorted(sets)} were passed")
    if len(set(class_names)) != len(class_names):
        raise InputError(f"class names must be unique, or their accuracies overwrite each other: {list(class_names)}")
    for name in SETS:
        _check_labels(name, sets[name][1], len(class_names))


def _check_labels(name: str, labels: torch.Tensor, num_classes: int) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise InputError(
            f"labels of the {name} set reach from {int(labels.min())} to {int(labels.max())}, "
            f"and there are {num_classes} class names: pass one name for each class"
        )
