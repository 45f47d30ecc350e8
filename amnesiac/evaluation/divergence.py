"""How far a model is from the model retrained without the forget set: in its outputs and in its weights.

Everything is computed in float64. Two retrainings that differ only in their seed differ as well, so none of
these reaches 0 in practice.
"""

import math
from collections.abc import Collection, Mapping

import torch

from amnesiac.errors import InputError, SpecMismatch


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Margins float64 `[n]` of `logits` `[n, classes]`: m_i = z_iy - log sum_{c != y} exp(z_ic), y = y_i.

    That is log(p_y / (1 - p_y)), the logit-scaled confidence of Carlini et al. (2022, arXiv 2112.03570).
    Positive means that the label is more probable than all other classes together.
    Raises InputError when there are fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise InputError(f"a margin needs at least two classes, and the logits have shape {list(logits.shape)}")
    z = logits.double()
    own = labels[:, None]
    others = z.scatter(1, own, -torch.inf)
    return z.gather(1, own)[:, 0] - others.logsumexp(1)


def mean_abs_margin_difference(logits: torch.Tensor, other_logits: torch.Tensor, labels: torch.Tensor) -> float:
    """(1/n) sum_i |m_i - m'_i|, the margins `m` of two models on the same samples.

    Margins of models compared with retrained ones: Georgiev et al., "Attribute-to-delete" (2024, arXiv
    2410.23232). Raises InputError when there is no sample.
    """
    _require_pairs(logits, other_logits)
    return float((margin(logits, labels) - margin(other_logits, labels)).abs().mean())


def kl(reference_logits: torch.Tensor, logits: torch.Tensor) -> float:
    """Mean KL divergence in nats, KL(reference || model) = (1/n) sum_i sum_c p_ic (log p_ic - log q_ic).

    p = softmax(reference_logits), q = softmax(logits), both of logits `[n, classes]` (Kullback and Leibler,
    1951). The retrained model is the reference. Raises InputError when there is no sample.
    """
    _require_pairs(reference_logits, logits)
    log_p, log_q = reference_logits.double().log_softmax(1), logits.double().log_softmax(1)
    return float((log_p.exp() * (log_p - log_q)).sum(1).mean())


def relative_verification_error(
    unlearned: Mapping[str, torch.Tensor],
    retrained: Mapping[str, torch.Tensor],
    original: Mapping[str, torch.Tensor],
    names: Collection[str] | None = None,
) -> float:
    """||u - r||_2 / ||o - r||_2 over all weights `names` (by default all floating-point tensors) together.

    The verification error ||u - r|| of Thudi et al. (2022, arXiv 2109.13398) as a multiple of what doing
    nothing leaves: 0 is the retrained model, 1 is no nearer than the original. Where original and retrained are equal
    there was nothing to forget: 0 if the unlearned model equals them as well, else infinite.

    Raises SpecMismatch when the state dicts don't hold the same tensors.
    """
    _require_same_tensors(unlearned, retrained, original)
    chosen = names if names is not None else [n for n, value in retrained.items() if value.is_floating_point()]
    error, reference = (_distance(weights, retrained, chosen) for weights in (unlearned, original))
    if reference == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / reference


def _distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], names: Collection[str]) -> float:
    return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in names))


def _require_pairs(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or len(a) == 0:
        raise InputError(
            f"logits of shapes {list(a.shape)} and {list(b.shape)} can't be compared: "
            "pass those of two models on the same samples, at least one"
        )


def _require_same_tensors(*weights: Mapping[str, torch.Tensor]) -> None:
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in weights]
    for other in shapes[1:]:
        if other != shapes[0]:
            differing = sorted({name for name, _ in shapes[0].items() ^ other.items()})
            raise SpecMismatch(
                f"state dicts differ in {differing}: compare models of the same architecture and settings"
            )
