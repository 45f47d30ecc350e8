"""U-LiRA: can somebody with shadow models tell, example by example, an unlearned model from a retrained one?

Hayes et al., "Inexact unlearning needs more careful evaluations" (2024, arXiv 2403.01218), after LiRA (Carlini et al.,
2022, arXiv 2112.03570) and Kurmanji et al. (2023, arXiv 2302.09880). For each example x, a Gaussian is fitted to the
margins of unlearned and one to those of retrained shadow models; a held-out model's score is the log-likelihood ratio

    s(x) = log N(m; mu_u, var_u) - log N(m; mu_r, var_r).

The ideal AUC is .5: below it is as telling as above, and an attack that is always wrong has only to be turned round.

Cross-fitting: models of each side are split in two halves at random; Gaussians of one half score the other's models, of
both sides, and the other way round; curves are averaged over halves and splits. So no Gaussian is fitted on a model
that it scores, and a score is only compared with scores of the same fit.

Intervals are from a bootstrap over *models*, fits included; copies of a model stay in its half. (Model, example) pairs
of one model are not independent, so resampling them would give intervals that are too narrow. Both sides must be
trained independently: no shared seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from amnesiac.evaluation.klom import require_margins
from amnesiac.evaluation.roc import weighted_auc, weighted_tpr
from amnesiac.seeding import torch_generator

FPRS = (0.01, 0.001)
CURVE = tuple(float(x) for x in torch.logspace(-4, 0, 81, dtype=torch.float64))
"""False positive rates at which the curve is kept."""
POOLED_BELOW = 16
"""With fewer fitted models a side all examples share one variance around their own means (Carlini et al., V-C)."""
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class ULira:
    """The attack's success; *_low and *_high span 95 %.

    per_example:  AUC `[n]` of each example's scores among themselves
    fpr, tpr:     the averaged curve `[k]`
    models:       unlearned and retrained
    """

    auc: float
    auc_low: float
    auc_high: float
    tpr_at_1_fpr: float
    tpr_low: float
    tpr_high: float
    tpr_at_01_fpr: float
    tpr_at_01_low: float
    tpr_at_01_high: float
    per_example: Tensor
    fpr: Tensor
    tpr: Tensor
    models: tuple[int, int]

    @property
    def passes(self) -> bool:
        """Whether guessing (.5) lies within the interval."""
        return self.auc_low <= 0.5 <= self.auc_high

    def nearly_passes(self, times: float) -> bool:
        """The same with an interval that reaches so many times as far to both sides of the AUC."""
        low, high = (self.auc + times * (end - self.auc) for end in (self.auc_low, self.auc_high))
        return low <= 0.5 <= high


@dataclass(frozen=True)
class _Scores:
    """Scores `[b, models * n]` of held-out models of both sides, and how often each counts.

    usable: `[b]`, whether at least two different models of either side were fitted: of one there is no variance
    """

    usable: Tensor
    unlearned: Tensor
    unlearned_weights: Tensor
    retrained: Tensor
    retrained_weights: Tensor

    @property
    def sides(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.unlearned, self.unlearned_weights, self.retrained, self.retrained_weights


def ulira(unlearned: Tensor, retrained: Tensor, *, splits: int = 4, bootstrap: int = 500, seed: int = 0) -> ULira:
    """Attack margins `[models, n]` and `[models', n]` of the same examples; at least four models a side.

    Raises InputError for fewer models, other shapes, or margins that aren't finite.
    """
    require_margins(unlearned, retrained, least=4)
    sides = (unlearned.double(), retrained.double())
    halves = _halves(len(unlearned), len(retrained), splits, seed)
    once = (torch.ones(1, len(unlearned)).double(), torch.ones(1, len(retrained)).double())
    fprs = torch.tensor([*FPRS, *CURVE], dtype=torch.float64)
    auc, tpr = _figures(sides, once, halves, fprs)
    drawn = tuple(_resampled(len(side), bootstrap, seed, k) for k, side in enumerate(sides))
    aucs, tprs = _figures(sides, drawn, halves, fprs[: len(FPRS)])
    low, high = (torch.nanquantile(torch.stack([aucs, *tprs.T]), level, dim=1).tolist() for level in (0.025, 0.975))
    return ULira(
        float(auc[0]), low[0], high[0],
        float(tpr[0, 0]), low[1], high[1],
        float(tpr[0, 1]), low[2], high[2],
        _per_example(sides, once, halves), fprs[len(FPRS) :], tpr[0, len(FPRS) :], (len(unlearned), len(retrained)),
    )  # fmt: skip


def _figures(
    sides: tuple[Tensor, ...], weights: tuple[Tensor, ...], halves: list[tuple[Tensor, ...]], fprs: Tensor
) -> tuple[Tensor, Tensor]:
    """AUC `[b]` and TPR `[b, k]`, means over halves and splits; a half of which a draw left one model doesn't count."""
    aucs, tprs = [], []
    for scores in _fits(sides, weights, halves):
        aucs.append(weighted_auc(*scores.sides).where(scores.usable, torch.nan))
        tprs.append(weighted_tpr(*scores.sides, fprs).where(scores.usable[:, None], torch.nan))
    return torch.stack(aucs).nanmean(0), torch.stack(tprs).nanmean(0)


def _per_example(sides: tuple[Tensor, ...], weights: tuple[Tensor, ...], halves: list[tuple[Tensor, ...]]) -> Tensor:
    """AUC `[n]`: an example's held-out scores among themselves."""
    n = sides[0].shape[1]
    found = []
    for scores in _fits(sides, weights, halves):
        columns = [part.reshape(-1, n).T.contiguous() for part in scores.sides]
        found.append(weighted_auc(columns[0], columns[1], columns[2], columns[3]))
    return torch.stack(found).mean(0)


def _fits(
    sides: tuple[Tensor, ...], weights: tuple[Tensor, ...], halves: list[tuple[Tensor, ...]]
) -> Iterator[_Scores]:
    """Scores of every half by the Gaussians of the other."""
    for fitted in halves:
        fits = [_gaussians(side[own], w[:, own]) for side, w, own in zip(sides, weights, fitted, strict=True)]
        parts = []
        for side, w, own in zip(sides, weights, fitted, strict=True):
            held = side[~own]
            ratio = _log_density(held, *fits[0]) - _log_density(held, *fits[1])
            parts += [ratio.flatten(1), w[:, ~own, None].expand(ratio.shape).flatten(1)]
        different = [(w[:, own] > 0).sum(1) for w, own in zip(weights, fitted, strict=True)]
        yield _Scores((different[0] > 1) & (different[1] > 1), *parts)


def _gaussians(margins: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `[b, n]` of margins `[models, n]`, model k counting weights[b, k] times."""
    total = weights.sum(1, keepdim=True)
    mean = weights @ margins / total
    square = (weights @ margins.square() / total - mean.square()).clamp_min(0)
    variance = square * total / (total - 1).clamp_min(1)
    if len(margins) < POOLED_BELOW:
        variance = variance.mean(1, keepdim=True).expand_as(mean)
    return mean, variance.clamp_min(SMALLEST_VARIANCE)


def _log_density(margins: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(m; mean, variance) `[b, models, n]` of margins `[models, n]`."""
    distance = (margins[None] - mean[:, None]).square()
    return -0.5 * (distance / variance[:, None] + variance[:, None].log() + math.log(2 * math.pi))


def _halves(unlearned: int, retrained: int, splits: int, seed: int) -> list[tuple[Tensor, ...]]:
    """Masks over the models of both sides: what is fitted, each half once."""
    generator = torch_generator(seed, "ulira halves")
    found: list[tuple[Tensor, ...]] = []
    for _ in range(splits):
        masks = []
        for count in (unlearned, retrained):
            mask = torch.zeros(count, dtype=torch.bool)
            mask[torch.randperm(count, generator=generator)[: count // 2]] = True
            masks.append(mask)
        found += [tuple(masks), tuple(~mask for mask in masks)]
    return found


def _resampled(models: int, draws: int, seed: int, side: int) -> Tensor:
    """How often each model is drawn, `[draws, models]`, with replacement."""
    generator = torch_generator(seed, "ulira bootstrap", side)
    chosen = torch.randint(models, (draws, models), generator=generator)
    return torch.zeros(draws, models, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, models).double())
