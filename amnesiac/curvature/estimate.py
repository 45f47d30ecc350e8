"""Curvature of the training loss along the run: Kronecker eigenbases and EK-FAC eigenvalues (method.md §2).

For a linear map the Fisher matrix is nearly a Kronecker product of E[b b^T] and E[a a^T] (K-FAC, Martens and Grosse
2015); in the product
of their eigenbases its diagonal is measured exactly (EK-FAC, George et al. 2018): lambda = E[(Q_out^T G Q_in)^2]
over per-sample gradients G
whose labels are drawn from the model's own prediction (true Fisher). Layers without a matrix form keep their diagonal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.capture.blocks import Block
from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.layers import Factors, LayerGradient
from amnesiac.curvature.whitening import Whitening
from amnesiac.progress import Progress, silent
from amnesiac.seeding import numpy_generator, torch_generator

_BATCH = 256


@dataclass(frozen=True)
class LayerCurvature:
    """One layer.

    q_out `[d_out, d_out]`, q_in `[d_in, d_in]`: eigenbases, pooled over segments; None for layers without a matrix
    eigenvalues `[segments, classes, d_out, d_in]` (or `[segments, classes, numel]`): means over the samples of a class
    """

    q_out: Tensor | None
    q_in: Tensor | None
    eigenvalues: Tensor


@dataclass(frozen=True)
class Probe:
    """What curvature is measured on.

    snapshots: weights at the middle of each segment;  inputs, labels: the training samples;  samples: drawn a segment
    """

    factory: Callable[[], nn.Module]
    snapshots: Sequence[Mapping[str, Tensor]]
    inputs: Tensor
    labels: Tensor
    classes: int
    samples: int
    seed: int

    def rows(self, segment: int) -> npt.NDArray[np.int64]:
        """The samples that a segment's curvature is measured on."""
        generator = numpy_generator(self.seed, "curvature", segment)
        n = len(self.labels)
        return np.sort(generator.choice(n, min(self.samples, n), replace=False))


def estimate(
    probe: Probe, blocks: Sequence[Block], whitenings: Sequence[Sequence[Whitening]], progress: Progress = silent
) -> list[LayerCurvature]:
    """Curvature of each block; `whitenings` by segment and block. Two passes over the drawn samples of each segment."""
    bases = _bases(probe, blocks, whitenings, progress)
    values = [_eigenvalues(probe, blocks, bases, whitenings[s], s) for s in range(len(probe.snapshots))]
    stacked = [torch.stack([segment[k] for segment in values]) for k in range(len(blocks))]
    return [
        LayerCurvature(*basis, own) if basis is not None else LayerCurvature(None, None, own)
        for basis, own in zip(bases, stacked, strict=True)
    ]


def _bases(
    probe: Probe, blocks: Sequence[Block], whitenings: Sequence[Sequence[Whitening]], progress: Progress
) -> list[tuple[Tensor, Tensor] | None]:
    """Eigenvectors of the layers' two factors, summed over all segments."""
    sums: list[list[Tensor | float]] = [[0.0, 0.0] for _ in blocks]
    for segment in range(len(probe.snapshots)):
        for _, gradients in _gradients(probe, segment):
            for k, block in enumerate(blocks):
                factors = gradients[block.layer]
                if isinstance(factors, Factors):
                    left, right = (t.flatten(0, 1) for t in _whitened(factors, whitenings[segment][k]))
                    sums[k] = [sums[k][0] + left.T @ left, sums[k][1] + right.T @ right]
        progress("curvature", segment + 1, 2 * len(probe.snapshots))
    return [
        (torch.linalg.eigh(left)[1], torch.linalg.eigh(right)[1])
        if isinstance(left, Tensor) and isinstance(right, Tensor)
        else None
        for left, right in sums
    ]


def _eigenvalues(
    probe: Probe,
    blocks: Sequence[Block],
    bases: Sequence[tuple[Tensor, Tensor] | None],
    whitenings: Sequence[Whitening],
    segment: int,
) -> list[Tensor]:
    """Mean squares in the eigenbasis, by class: `[classes, d_out, d_in]` a block."""
    sums = [torch.zeros(probe.classes, *(block.matrix or (block.numel,))) for block in blocks]
    counts = torch.zeros(probe.classes)
    for labels, gradients in _gradients(probe, segment):
        counts += torch.bincount(labels, minlength=probe.classes)
        for k, block in enumerate(blocks):
            squares_by_class(sums[k], gradients[block.layer], block, bases[k], whitenings[k], labels)
    return [total / counts.clamp_min(1.0).reshape(-1, *[1] * (total.dim() - 1)) for total in sums]


def squares_by_class(
    sums: Tensor,
    gradient: LayerGradient,
    block: Block,
    basis: tuple[Tensor, Tensor] | None,
    whitening: Whitening,
    labels: Tensor,
) -> None:
    """Add the samples' squared gradients in the eigenbasis to their classes' sums, in place."""
    if not isinstance(gradient, Factors) or basis is None:
        flat = _flat(block, gradient) * whitening.root
        sums.index_add_(0, labels, flat.square())
        return
    left, right = _whitened(gradient, whitening)
    left, right = left @ basis[0], right @ basis[1]
    if left.shape[1] > 1:
        sums.index_add_(0, labels, (left.transpose(1, 2) @ right).square())
        return
    for label in sorted(set(labels.tolist())):  # one outer product a sample: its square is the squares' outer product
        own = labels == label
        sums[label] += left[own, 0].square().T @ right[own, 0].square()


def _whitened(factors: Factors, whitening: Whitening) -> tuple[Tensor, Tensor]:
    assert whitening.left is not None and whitening.right is not None
    return factors.left * whitening.left, factors.right * whitening.right


def _flat(block: Block, gradient: LayerGradient) -> Tensor:
    assert isinstance(gradient, dict)
    return torch.cat([gradient[name.rpartition(".")[2]].flatten(1) for name in block.parameters], 1)


def _gradients(probe: Probe, segment: int) -> Iterator[tuple[Tensor, dict[str, LayerGradient]]]:
    """Per-sample gradients at a snapshot, labels drawn from the prediction; yields the samples' *true* classes with
    them.
    """
    model = probe.factory()
    model.load_state_dict(dict(probe.snapshots[segment]))
    tap, generator = GradientTap(model), torch_generator(probe.seed, "fisher", segment)
    chosen = torch.from_numpy(probe.rows(segment))
    for start in range(0, len(chosen), _BATCH):
        rows = chosen[start : start + _BATCH]
        tap.start()
        logits = model(probe.inputs[rows])
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator).squeeze(1)
        F.cross_entropy(logits, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]
        yield probe.labels[rows], tap.take()
    tap.remove()
