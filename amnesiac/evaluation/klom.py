"""KLoM: the KL divergence between the margins of many unlearned and many retrained models, sample by sample.

Georgiev et al., "Attribute-to-Delete" (2024, arXiv 2410.23232). For a sample, both ensembles' margins are clipped to
+-100 and counted in 20 bins of equal width from the smallest to the largest margin of both together;

    KLoM = sum_b p_b log(p_b / q_b),   p of the unlearned, q of the retrained models,

where an empty q_b under a filled p_b counts as 1e-5, and q is scaled to sum to 1 again. 0: the same histogram. The
largest value belongs to the last bin: published code with bins open to the right drops it.

With few models the histograms are ragged, and retraining itself is far from 0: read KLoM beside `null_band`, which has
as many models a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amnesiac.errors import InputError
from amnesiac.seeding import torch_generator

BINS = 20
CLIP = 100.0
FLOOR = 1e-5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class NullBand:
    """KLoM of retrained against retrained models.

    models:     on each side of a split
    low, high:  of each quantile over samples, what the middle 95 % of the splits span
    """

    models: int
    quantiles: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def median_high(self) -> float:
        """The upper end of the band around the median: what KLoM's median is held against."""
        return self.high[self.quantiles.index(0.5)]


def klom(unlearned: Tensor, retrained: Tensor) -> Tensor:
    """KLoM float64 `[n]` of margins `[models, n]` and `[models', n]`.

    Raises InputError for margins of different samples, of no model, or that aren't finite.
    """
    require_margins(unlearned, retrained)
    p_values, q_values = (m.double().clamp(-CLIP, CLIP) for m in (unlearned, retrained))
    both = torch.cat([p_values, q_values])
    low, high = both.amin(0), both.amax(0)
    width = torch.where(high > low, high - low, torch.ones_like(low)) / BINS
    p, q = (_histogram(values, low, width) for values in (p_values, q_values))
    q = torch.where(p > 0, q.clamp_min(FLOOR), q)
    q = q / q.sum(0)
    ratio = p / torch.where(p > 0, q, 1.0)
    result: Tensor = torch.special.xlogy(p, ratio).sum(0)
    return result


def klom_quantiles(values: Tensor, quantiles: Sequence[float] = QUANTILES) -> tuple[float, ...]:
    """Quantiles over samples of KLoM `[n]`."""
    levels = torch.tensor(quantiles, dtype=torch.float64)
    return tuple(float(value) for value in torch.quantile(values.double(), levels))


def null_band(retrained: Tensor, splits: int = 100, seed: int = 0) -> NullBand:
    """KLoM between random halves of retrained models, `[models, n]`, at least four of them.

    A band for m unlearned against m retrained models needs 2 m retrained ones here: KLoM falls with their number.
    """
    half = len(retrained) // 2
    if half < 2:
        raise InputError(f"a null band needs at least 4 retrained models, and there are {len(retrained)}: train more")
    generator = torch_generator(seed, "klom null band")
    found = []
    for _ in range(splits):
        order = torch.randperm(len(retrained), generator=generator)
        found.append(klom_quantiles(klom(retrained[order[:half]], retrained[order[half : 2 * half]])))
    values = torch.tensor(found, dtype=torch.float64)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return NullBand(half, QUANTILES, tuple(low.tolist()), tuple(high.tolist()))


def require_margins(unlearned: Tensor, retrained: Tensor, least: int = 1) -> None:
    """Raise InputError unless both are `[models, n]` of the same n, finite, with at least `least` models."""
    shapes = [list(margins.shape) for margins in (unlearned, retrained)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1] or shapes[0][1] == 0:
        raise InputError(f"margins of shapes {shapes[0]} and {shapes[1]}: pass [models, samples], of the same samples")
    if min(shapes[0][0], shapes[1][0]) < least:
        raise InputError(f"{shapes[0][0]} and {shapes[1][0]} models: at least {least} a side are needed, train more")
    if not (bool(unlearned.isfinite().all()) and bool(retrained.isfinite().all())):
        raise InputError("some margins aren't finite: a model of the ensemble diverged; leave it out or mend its run")


def _histogram(values: Tensor, low: Tensor, width: Tensor) -> Tensor:
    """Shares `[bins, n]` of values `[models, n]`; the last bin has its right end."""
    places = ((values - low) / width).floor().clamp(0, BINS - 1).long()
    counts = torch.zeros(BINS, values.shape[1], dtype=torch.float64)
    return counts.scatter_add_(0, places, torch.ones_like(values)) / len(values)
