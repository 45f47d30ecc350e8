"""Low-rank recompression of per-sample gradients: a few steps of batched block power iteration."""

import torch
from torch import Tensor

from amnesiac.capture.layers import Factors


def compress(factors: Factors, rank: int, iterations: int = 2) -> Factors:
    """Best-effort rank-`rank` form of each sample's `left^T right`, without forming the matrix.

    Subspace iteration on G^T G (Halko, Martinsson and Tropp 2011, algorithm 4.4) from each sample's own largest rows:
    from one start for all, a few of many end far from the best of their rank. Deterministic, and exact where the rank
    suffices. Returns left `[n, rank, d_out]` = (G Q)^T and right `[n, rank, d_in]` = Q^T.
    """
    left, right = factors.left, factors.right
    sizes = (left * right.norm(dim=2, keepdim=True)).norm(dim=1)  # of the rows, as if no two outer products met
    chosen = left.gather(2, _largest(sizes, rank)[:, None].expand(-1, left.shape[1], -1))
    rows = _start(chosen.transpose(1, 2) @ right, rank)
    for _ in range(iterations):  # rows times matrices: three times as fast as matrices times a few columns
        turned = ((rows @ right.transpose(1, 2)) @ left) @ left.transpose(1, 2)
        rows = orthonormal_rows(turned @ right)
    return Factors((rows @ right.transpose(1, 2)) @ left, rows)


def truncate(matrices: Tensor, rank: int, iterations: int = 2) -> Factors:
    """The same for matrices `[n, d_out, d_in]` that are formed already."""
    largest = _largest(matrices.abs().sum(2), rank)
    right = _start(matrices.gather(1, largest[:, :, None].expand(-1, -1, matrices.shape[2])), rank)
    for _ in range(iterations):  # rows times matrices: five times as fast as matrices times a few columns
        right = orthonormal_rows((right @ matrices.transpose(1, 2)) @ matrices)
    return Factors(right @ matrices.transpose(1, 2), right)


def _largest(sizes: Tensor, rank: int) -> Tensor:
    return sizes.topk(min(rank, sizes.shape[1]), dim=1).indices


def _start(rows: Tensor, rank: int) -> Tensor:
    return orthonormal_rows(with_chance(torch.nn.functional.pad(rows, (0, 0, 0, rank - rows.shape[1]))))


def with_chance(rows: Tensor) -> Tensor:
    """Starting rows `[n, rank, d]` with a hundredth of chance in them, always the same, so that equal ones part; chance
    alone where a sample's rows cancelled out.
    """
    chance = torch.randn(rows.shape[1:], generator=torch.Generator().manual_seed(0)).to(rows)
    size = rows.abs().mean(2, keepdim=True).amax(1, keepdim=True)
    return rows + 0.01 * torch.where(size > 0.0, size, 1.0) * chance


def orthonormal_rows(rows: Tensor) -> Tensor:
    """`orthonormal` of the rows of `[n, rank, d]`."""
    return orthonormal(rows.transpose(1, 2)).transpose(1, 2).contiguous()


def orthonormal(columns: Tensor) -> Tensor:
    """Gram-Schmidt, twice, on a batch of tall matrices `[n, d, rank]`; columns without any content become zero.

    Scaled first: gradients are so small that their squares underflow.
    """
    floor = torch.finfo(columns.dtype).tiny
    columns = columns / columns.abs().amax((1, 2), keepdim=True).clamp_min(floor)
    done: list[Tensor] = []
    for k in range(columns.shape[2]):
        column = columns[:, :, k : k + 1]
        size = column.norm(dim=1, keepdim=True)
        for _ in range(2):
            for other in done:
                column = column - other * (other.transpose(1, 2) @ column)
        rest = column.norm(dim=1, keepdim=True)
        enough = (rest > 1e-5 * size) & (rest > floor)
        done.append(torch.where(enough, column / rest.clamp_min(floor), torch.zeros_like(column)))
    return torch.cat(done, 2)
