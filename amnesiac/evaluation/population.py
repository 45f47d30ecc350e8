"""The population membership attack: a legacy column, kept because older tables have it.

One model, two populations: forgotten samples and samples that were never trained on. The attacker has one rule for all
samples: a threshold on the loss (Yeom et al., 2018, arXiv 1709.01604), or a logistic regression on loss, entropy and
largest probability (Shokri et al., 2017, arXiv 1610.05820; Graves et al., 2021, arXiv 2010.10981). Average-case attacks
of this kind miss the few samples that are remembered (Carlini et al., 2022, arXiv 2112.03570), and .5 isn't the goal:
the goal is the value that the retrained model has on the same samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from amnesiac.errors import InputError
from amnesiac.evaluation.roc import auc
from amnesiac.seeding import torch_generator

FOLDS = 5
_RIDGE = 1e-2
_NEWTON_STEPS = 25


@dataclass(frozen=True)
class PopulationAttack:
    """AUCs in [0, 1] of taking forgotten samples for members: by the loss, and by cross-validated regression."""

    threshold_auc: float
    logistic_auc: float


def population_attack(
    forgotten: Tensor, forgotten_labels: Tensor, unseen: Tensor, unseen_labels: Tensor, seed: int = 0
) -> PopulationAttack:
    """Attack one model's logits on forgotten `[n, classes]` and unseen `[m, classes]` samples, at least five each."""
    if min(len(forgotten), len(unseen)) < FOLDS:
        raise InputError(
            f"the population attack needs at least {FOLDS} samples on each side to cross-validate, and there are "
            f"{len(forgotten)} forgotten and {len(unseen)} unseen ones"
        )
    positive, negative = features(forgotten, forgotten_labels), features(unseen, unseen_labels)
    scores = auc(-positive[:, 0], -negative[:, 0])
    return PopulationAttack(scores, _cross_validated(positive, negative, seed))


def features(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss, entropy and largest probability, float64 `[n, 3]`, of logits `[n, classes]`."""
    log_p = logits.double().log_softmax(1)
    loss = functional.nll_loss(log_p, labels, reduction="none")
    entropy = -torch.special.xlogy(log_p.exp(), log_p.exp()).sum(1)
    return torch.stack([loss, entropy, log_p.amax(1).exp()], 1)


def _cross_validated(positive: Tensor, negative: Tensor, seed: int) -> float:
    """Mean AUC over folds of a regression fitted on the others."""
    folds = [_folds(len(side), seed, k) for k, side in enumerate((positive, negative))]
    found = []
    for k in range(FOLDS):
        held = [fold == k for fold in folds]
        fit = _logistic(positive[~held[0]], negative[~held[1]])
        found.append(auc(_score(positive[held[0]], fit), _score(negative[held[1]], fit)))
    return sum(found) / FOLDS


def _folds(count: int, seed: int, side: int) -> Tensor:
    order = torch.randperm(count, generator=torch_generator(seed, "population", side))
    return torch.arange(count)[order] % FOLDS


def _logistic(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and scale of the features and the weights `[4]`: ridge by Newton's method, both sides weigh alike."""
    rows = torch.cat([positive, negative])
    mean, scale = rows.mean(0), rows.std(0).clamp_min(1e-12)
    x = functional.pad((rows - mean) / scale, (0, 1), value=1.0)
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).double()
    weight = torch.where(y == 1, 0.5 / len(positive), 0.5 / len(negative))
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    beta = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(x @ beta)
        gradient = x.T @ (weight * (p - y)) + ridge @ beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        beta = beta - torch.linalg.solve(hessian, gradient)
    return mean, scale, beta


def _score(rows: Tensor, fit: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    mean, scale, beta = fit
    return ((rows - mean) / scale) @ beta[:-1]
