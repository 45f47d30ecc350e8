"""The version-difference attack: whoever holds the versions before and after a deletion learns who was deleted.

The difference of two versions is the sum of the deleted samples' contributions. In the first linear layer each of them
is an outer product, gradient x input, so one deleted sample's input stands in the difference but for a factor: Phong et
al., IEEE TIFS 2018 (eprint.iacr.org/2017/715) for gradients; Bertran et al., NeurIPS 2024 (arXiv:2405.20272) and Hu et
al., S&P 2024 (arXiv:2404.03233) for unlearned versions. With one version alone an attacker is left with how well it
fits a candidate, as in membership inference (Chen et al., CCS 2021, arXiv:2005.02205).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def recovered_input(before: Mapping[str, Tensor], after: Mapping[str, Tensor], weight: str) -> Tensor:
    """The direction of the deleted input, float64 `[d_in]` of length one, from a linear layer that reads inputs.

    weight: its name in the state dicts, `[d_out, d_in]`. The best rank-one part of the difference (its first right
    singular vector); the sign is the one under which most of it is positive. Raises ValueError where both are equal.
    """
    difference = after[weight].double() - before[weight].double()
    if not bool(difference.any()):
        raise ValueError(f"both versions have the same {weight!r}: there is nothing to recover")
    direction: Tensor = torch.linalg.svd(difference, full_matrices=False).Vh[0]
    return direction if float(direction.sum()) >= 0 else -direction


def resemblance(direction: Tensor, candidates: Tensor) -> Tensor:
    """|cosine| of a recovered direction `[d]` with each candidate input `[n, ...]`: float64 `[n]`."""
    inputs = candidates.reshape(len(candidates), -1).double()
    cosines: Tensor = functional.normalize(inputs, dim=1) @ direction
    return cosines.abs()


def accused_by_difference(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], weight: str, candidates: Tensor
) -> int:
    """Which of the candidate inputs `[n, ...]` was deleted, says an attacker with both versions."""
    return int(resemblance(recovered_input(before, after, weight), candidates).argmax())


def accused_by_fit(losses: Tensor) -> int:
    """Which candidate was deleted, says an attacker with the version after alone: the one that it fits worst.

    losses: of that version for each candidate, `[n]`
    """
    return int(losses.argmax())
