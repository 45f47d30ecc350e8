"""Curvature of the training loss along the run: Kronecker eigenbases and EK-FAC eigenvalues (method.md §2).

For a linear map the Fisher matrix is nearly a Kronecker product of E[b b^T] and E[a a^T] (K-FAC, Martens and Grosse
2015); in the product of their eigenbases its diagonal is measured exactly (EK-FAC, George et al. 2018):
lambda = E[(Q_out^T G Q_in)^2] over per-sample gradients G whose labels are drawn from the model's own prediction (true
Fisher). Layers without a matrix form keep their diagonal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.capture.blocks import Block
from amnesiac.capture.hooks import GradientTap, LayerChoice
from amnesiac.capture.layers import Factors, LayerGradient
from amnesiac.curvature.basis import Basis, blocks_of, eigenvectors
from amnesiac.curvature.whitening import Whitening
from amnesiac.progress import Progress, silent
from amnesiac.seeding import numpy_generator, torch_generator

Gradients = tuple[dict[str, LayerGradient], Tensor]
_BATCH = 128
_BASIS_SNAPSHOTS = 3
_POSITIONS = 64
_LARGEST_BATCH = 1 << 24  # numbers of whole gradients of a mini-batch; where there are more,
_PART = 1 << 21  # so many at a time, that they stay in the processor's cache
_LARGEST_TABLE = 1 << 26  # numbers of a layer's eigenvalues by class, all segments: 256 MiB


@dataclass(frozen=True)
class LayerCurvature:
    """One layer, in the coordinates of its basis.

    total:    eigenvalues of each segment, means over all samples, `[segments, d_out, d_in]` (or `[segments, numel]`)
    by_class: the part of `total` that has to do with each class, `[segments, classes, ...]`: draws of samples of the
              class, and draws whose label is the class. None where the table would be too large
    pace:     of each segment (whitening.py), 1 under SGD
    """

    basis: Basis
    total: Tensor
    by_class: Tensor | None
    pace: tuple[float, ...]

    def retained(self, segment: int, forgotten: Tensor | None) -> Tensor:
        """Eigenvalues of a segment when these shares of the classes' samples, `[classes]`, are left out."""
        if forgotten is None or self.by_class is None:
            return self.total[segment]
        some = torch.nonzero(forgotten).flatten()  # all of a hundred classes' tables are a lot to read for one of them
        shares, tables = forgotten[some].to(self.total.dtype), self.by_class[segment][some].to(self.total.dtype)
        left_out = torch.tensordot(shares, tables, 1)
        kept: Tensor = (self.total[segment] - left_out).clamp_min(0.0)
        return kept


@dataclass(frozen=True)
class Probe:
    """What curvature is measured on.

    snapshots: weights at the middle of each segment;  inputs, labels: the training samples
    samples:   drawn for the eigenvalues of each segment;  largest_factor: wider factors are cut into blocks
    layers:    which are captured (capture.hooks.chosen_layers)
    """

    factory: Callable[[], nn.Module]
    snapshots: Sequence[Mapping[str, Tensor]]
    inputs: Tensor
    labels: Tensor
    classes: int
    samples: int
    largest_factor: int
    seed: int
    layers: LayerChoice = None

    def rows(self, segment: int) -> npt.NDArray[np.int64]:
        """The samples that a segment's curvature is measured on."""
        generator = numpy_generator(self.seed, "curvature", segment)
        n = len(self.labels)
        return np.sort(generator.choice(n, min(self.samples, n), replace=False))


def estimate(
    probe: Probe, blocks: Sequence[Block], whitenings: Sequence[Whitening], progress: Progress = silent
) -> list[LayerCurvature]:
    """Curvature of each block. Bases from up to three snapshots, eigenvalues from all: one pass over the drawn samples
    of each.
    """
    bases, kept = _bases(probe, blocks, whitenings, progress)
    tables = []
    for segment in range(len(probe.snapshots)):
        tables.append(_eigenvalues(probe, blocks, bases, segment, kept.pop(segment, None)))
        progress("curvature", segment + 1, len(probe.snapshots))
    return [
        LayerCurvature(basis, torch.stack([t[k][0] for t in tables]), _stacked([t[k][1] for t in tables]), own.pace)
        for k, (basis, own) in enumerate(zip(bases, whitenings, strict=True))
    ]


def _stacked(tables: Sequence[Tensor | None]) -> Tensor | None:
    present = [table for table in tables if table is not None]
    return torch.stack(present) if present else None


def _bases(
    probe: Probe, blocks: Sequence[Block], whitenings: Sequence[Whitening], progress: Progress
) -> tuple[list[Basis], dict[int, list[Gradients]]]:
    """Eigenvectors of the layers' two factors, pooled over snapshots spread over the run; and the gradients that they
    are from, by snapshot, where these are small enough to be kept for the eigenvalues.
    """
    count = len(probe.snapshots)
    chosen = sorted({round(float(s)) for s in np.linspace(0, count - 1, min(count, _BASIS_SNAPSHOTS))})
    sums = [[torch.zeros(side, side) for side in block.matrix or ()] for block in blocks]
    kept: dict[int, list[Gradients]] = {}
    for done, segment in enumerate(chosen):
        for gradients, touched in _gradients(probe, segment):
            for k, block in enumerate(blocks):
                factors = gradients[block.layer]
                if isinstance(factors, Factors):
                    for total, side in zip(sums[k], (factors.left, factors.right), strict=True):
                        vectors = _some(side)
                        total.addmm_(vectors.T, vectors)
            small = {name: _compact(gradient) for name, gradient in gradients.items()}
            if _numbers(small) / len(touched) * len(probe.rows(segment)) * len(chosen) <= _LARGEST_TABLE:
                kept.setdefault(segment, []).append((small, touched))
        progress("eigenbases", done + 1, len(chosen))
    return [_basis(own, whitening, probe) for own, whitening in zip(sums, whitenings, strict=True)], kept


def _compact(gradient: LayerGradient) -> LayerGradient:
    """The same gradient with no more outer products than it has rows."""
    if not isinstance(gradient, Factors) or gradient.left.shape[1] <= gradient.left.shape[2]:
        return gradient
    n, _, d_out = gradient.left.shape
    return Factors(torch.eye(d_out).expand(n, -1, -1), gradient.dense())


def _numbers(gradients: Mapping[str, LayerGradient]) -> int:
    sides = [(g.left, g.right) if isinstance(g, Factors) else tuple(g.values()) for g in gradients.values()]
    return sum(side.numel() for own in sides for side in own)


def _some(side: Tensor) -> Tensor:
    """A factor's vectors `[n * positions, d]`, of evenly spread positions where there are many: a convolution has
    hundreds of like vectors a sample, and their second moments cost as much as the gradients.
    """
    return side[:, :: max(1, side.shape[1] // _POSITIONS)].flatten(0, 1)


def _basis(sums: Sequence[Tensor], whitening: Whitening, probe: Probe) -> Basis:
    if not sums:
        return Basis(None, None, whitening.root)
    assert whitening.left is not None and whitening.right is not None
    parts = [blocks_of(matrix, probe.largest_factor) for matrix in sums]
    sides = zip(sums, (whitening.left, whitening.right), parts, strict=True)
    found = [scale[:, None] * eigenvectors(scale[:, None] * m * scale[None, :], own) for m, scale, own in sides]
    return Basis(found[0], found[1], None, *parts)


def _eigenvalues(
    probe: Probe, blocks: Sequence[Block], bases: Sequence[Basis], segment: int, kept: Iterable[Gradients] | None = None
) -> list[tuple[Tensor, Tensor | None]]:
    """Mean squares in the eigenbasis, of all samples and by class; of the gradients `kept`, if they are all there."""
    tables = [_empty_table(block, probe) for block in blocks]
    waiting: list[list[tuple[Factors, Tensor]]] = [[] for _ in blocks]
    for gradients, touched in _gradients(probe, segment) if kept is None else kept:
        for k, block in enumerate(blocks):
            own = gradients[block.layer]
            if isinstance(own, Factors) and own.left.shape[1] == 1:
                waiting[k].append((own, touched))  # small, and added up quickest together
            else:
                add_squares(tables[k], own, block, bases[k], touched)
    for k, block in enumerate(blocks):
        for own, touched in _joined(waiting[k]):
            add_squares(tables[k], own, block, bases[k], touched)
    n = len(probe.rows(segment))
    return [(table[0] / n, table[1:].div(n).bfloat16() if len(table) > 1 else None) for table in tables]


def _joined(parts: Sequence[tuple[Factors, Tensor]]) -> list[tuple[Factors, Tensor]]:
    """One part of all samples, or none."""
    if not parts:
        return []
    left, right = torch.cat([own.left for own, _ in parts]), torch.cat([own.right for own, _ in parts])
    return [(Factors(left, right), torch.cat([touched for _, touched in parts]))]


def _empty_table(block: Block, probe: Probe) -> Tensor:
    fits = block.numel * probe.classes * len(probe.snapshots) <= _LARGEST_TABLE
    return torch.zeros(1 + (probe.classes if fits else 0), *(block.matrix or (block.numel,)))


def add_squares(table: Tensor, gradient: LayerGradient, block: Block, basis: Basis, touched: Tensor) -> None:
    """Add the samples' squared gradients in the eigenbasis to `table` (all, then by class `touched` `[n, 1 + classes]`,
    whose first column is 1).
    """
    marks = touched[:, : len(table)]
    if isinstance(gradient, Factors) and gradient.left.shape[1] == 1:
        inside = basis.factors_into(Factors(gradient.left[:, 0], gradient.right[:, 0]))
        left, right = inside.left.square(), inside.right.square()
        for column in range(len(table)):  # one outer product a sample: its square is the squares' outer product
            own = marks[:, column].bool()
            table[column].addmm_(left[own].T, right[own])
        return
    size = len(marks) if len(marks) * block.numel <= _LARGEST_BATCH else max(1, _PART // block.numel)
    for rows in torch.split(torch.arange(len(marks)), size):
        inside_rows = _dense(_rows(gradient, rows, len(marks)), block, basis)
        table += (marks[rows].T @ inside_rows.square_().flatten(1)).reshape(table.shape)


def _rows(gradient: LayerGradient, rows: Tensor, count: int) -> LayerGradient:
    if len(rows) == count:
        return gradient
    if isinstance(gradient, Factors):
        return Factors(gradient.left[rows], gradient.right[rows])
    return {name: own[rows] for name, own in gradient.items()}


def _dense(gradient: LayerGradient, block: Block, basis: Basis) -> Tensor:
    """Whole gradients in the eigenbasis, by the cheaper way: factors first, or their product."""
    if not isinstance(gradient, Factors):
        return basis.into(torch.cat([gradient[name.rpartition(".")[2]].flatten(1) for name in block.parameters], 1))
    positions, (d_out, d_in) = gradient.left.shape[1], (gradient.left.shape[2], gradient.right.shape[2])
    if positions * basis.work > d_out * d_in * (d_out + d_in):
        return basis.into(gradient.dense())
    return basis.factors_into(gradient).dense()


def _gradients(probe: Probe, segment: int) -> Iterator[Gradients]:
    """Per-sample gradients at a snapshot, labels drawn from the prediction, and which classes they have to do with:
    `[n, 1 + classes]`, the first column 1.
    """
    model = probe.factory()
    model.load_state_dict(dict(probe.snapshots[segment]))
    tap, generator = GradientTap(model, probe.layers), torch_generator(probe.seed, "fisher", segment)
    for rows in torch.split(torch.from_numpy(probe.rows(segment)), _BATCH):
        tap.start(edges=True)
        logits = model(probe.inputs[rows])
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator).squeeze(1)
        tap.backward(F.cross_entropy(logits, drawn, reduction="sum"))
        touched = F.one_hot(probe.labels[rows], probe.classes) | F.one_hot(drawn, logits.shape[1])[:, : probe.classes]
        yield tap.take(), torch.cat([torch.ones(len(rows), 1), touched.float()], 1)
    tap.remove()
