"""The forgetting epsilon of the NeurIPS 2023 competition, example by example, and its score.

Triantafillou et al., "Are we making progress in unlearning?" (2024, arXiv 2406.09073). Unlearning is (epsilon, delta)
if no test tells unlearned from retrained models better than

    epsilon_x = max over attacks of max{ log((1 - delta - FPR) / FNR), log((1 - delta - FNR) / FPR) },

where an attack sees an example's output under a model, and FPR and FNR are its errors over models. Attacks: every
single threshold, in both directions, and every interval between two thresholds. An attack with one error rate of 0 is
left out, as in the competition (it says more of the number of models than of the attack); with both 0 epsilon is
infinite. Epsilon is at least 0: guessing is free. The score of an example halves with every .5 of epsilon:

    H(x) = 2 / 2^bin,  bin 1: [0, .5), ... bin 13: [6, inf);      F = mean of H over the forget set, 1 is best
    score = F x RA_u / RA_r x TA_u / TA_r

With m models a side epsilon can't exceed log((1 - delta) m) unless it is infinite, and as a maximum over attacks on the
same models it is above 0 for retrained models too: read it beside that of retrained against retrained ones.
"""

import torch
from torch import Tensor

from amnesiac.errors import InputError
from amnesiac.evaluation.klom import require_margins

DELTA = 0.01
BIN_WIDTH = 0.5
BINS = 13


def forgetting_epsilon(unlearned: Tensor, retrained: Tensor, delta: float = DELTA) -> Tensor:
    """epsilon_x float64 `[n]` of outputs (margins) `[models, n]` and `[models', n]`; infinite where all is told."""
    require_margins(unlearned, retrained)
    if not 0.0 <= delta < 1.0:
        raise InputError(f"delta is {delta}: it is a probability, at least 0 and below 1")
    columns = zip(unlearned.double().T, retrained.double().T, strict=True)
    return torch.tensor([_epsilon(*_error_rates(u, r), delta) for u, r in columns], dtype=torch.float64)


def forgetting_score(epsilons: Tensor) -> float:
    """F in (0, 1] of epsilons `[n]`: the mean of H; 1 where every epsilon is below .5."""
    if epsilons.numel() == 0:
        raise InputError("the score of no example isn't defined: pass at least one epsilon")
    places = torch.bucketize(epsilons.double(), BIN_WIDTH * torch.arange(BINS, dtype=torch.float64), right=True)
    return float((2.0 / 2.0 ** places.clamp_min(1)).mean())


def competition_score(forgetting: float, retain: tuple[float, float], test: tuple[float, float]) -> float:
    """F x RA_u / RA_r x TA_u / TA_r; `retain` and `test` are mean accuracies of (unlearned, retrained) models."""
    for name, (_, retrained) in (("retain", retain), ("test", test)):
        if retrained <= 0.0:
            raise InputError(f"the retrained models' {name} accuracy is {retrained}: nothing can be compared with it")
    return forgetting * retain[0] / retain[1] * test[0] / test[1]


def _error_rates(unlearned: Tensor, retrained: Tensor) -> tuple[Tensor, Tensor]:
    """FPR and FNR of "unlearned if a <= value < b" and of its opposite, for all thresholds a <= b; single ones too."""
    values = torch.cat([unlearned, retrained]).unique()  # type: ignore[no-untyped-call]
    limits = torch.cat([values, torch.full((1,), torch.inf, dtype=values.dtype)])
    below_u = torch.searchsorted(unlearned.sort().values, limits) / len(unlearned)
    below_r = torch.searchsorted(retrained.sort().values, limits) / len(retrained)
    inside_u, inside_r = ((below[None, :] - below[:, None]).triu() for below in (below_u.double(), below_r.double()))
    fpr, fnr = inside_r.flatten(), 1 - inside_u.flatten()
    return torch.cat([fpr, 1 - fpr]), torch.cat([fnr, 1 - fnr])


def _epsilon(fpr: Tensor, fnr: Tensor, delta: float) -> float:
    no_fp, no_fn = fpr <= 1e-12, fnr <= 1e-12
    if bool((no_fp & no_fn).any()):
        return float("inf")
    usable = ~(no_fp | no_fn)
    fpr, fnr = fpr[usable], fnr[usable]
    ratios = torch.cat([(1 - delta - fpr) / fnr, (1 - delta - fnr) / fpr])
    return max(0.0, float(ratios.clamp_min(1e-300).log().max())) if len(ratios) else 0.0
