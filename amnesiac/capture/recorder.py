"""Records every sample's contribution while any training loop runs: hooks on the model, hooks on the optimiser, a
spool.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amnesiac.capture.attribution import Step, preconditioner, read_lr, read_rule, step_count
from amnesiac.capture.blocks import Block, pack, plan_block
from amnesiac.capture.coordinates import subset
from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.layers import Factors, LayerGradient
from amnesiac.capture.spool import Layout, Spool
from amnesiac.errors import InputError, UnsupportedModel, UnsupportedOptimizer


class Recorder:
    """Feeds a spool from a training loop.

    with recorder.batch(rows):      # positions of the mini-batch's samples, in its order
        loss.backward()
    optimizer.step()                # recorded through the optimiser's own hooks

    The loss must be a sum over samples divided by the *scheduled* mini-batch size, so that leaving a sample out of
    the run
    doesn't change the others' shares. The first mini-batch is checked layer by layer against the gradients that
    autograd computed: a layer whose shares don't add up is refused before any weight has changed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        spool: Spool,
        *,
        captured: npt.NDArray[np.bool_] | None = None,
        rank: int | None = None,
        dtype: str = "float32",
        updates: Mapping[str, float] | None = None,
        samples: int | None = None,
    ) -> None:
        """Attach to model and optimiser.

        captured: which samples are kept, all if None;  rank: of convolution shares, None for exact;
        updates:  fraction of coordinates of whole-batch updates to keep, by ledger name;
        samples:  how many there are, to refuse positions outside at once.
        Raises UnsupportedModel, UnsupportedOptimizer.
        """
        try:
            self.rule, self._tap = read_rule(optimizer), GradientTap(model)
        except (UnsupportedModel, UnsupportedOptimizer):
            spool.close()
            raise
        self.model, self.optimizer, self.spool = model, optimizer, spool
        self._samples = samples
        self._captured, self._rank, self._dtype, self._updates = captured, rank, dtype, dict(updates or {})
        self._parameters = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
        self._coordinates = {k: self._kept(f) for k, f in self._updates.items()}
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._norm: Tensor | None = None
        self._open: tuple[float, float, Tensor | None] | None = None

    @contextmanager
    def batch(self, rows: Sequence[int] | npt.NDArray[np.int64] | Tensor) -> Iterator[None]:
        """Record one forward and backward pass over the samples `rows`."""
        samples = np.asarray(rows, np.int64)
        if len(samples) and not 0 <= samples.min() <= samples.max() < (self._samples or np.inf):
            raise InputError(
                f"rows reach from {samples.min()} to {samples.max()}, and there are {self._samples} samples"
            )
        before = None if self.spool.layout else [_gradient(p).clone() for _, p in self._parameters]
        self._tap.start()
        yield
        gradients = self._tap.take()
        if before is not None:
            self._begin(gradients, before, len(samples))
        self._append(samples, gradients)
        self._norm = self._gradient_norm()

    def close(self) -> None:
        """Detach all hooks and close the spool."""
        self._tap.remove()
        for handle in self._handles:
            handle.remove()
        self.spool.close()

    def _begin(self, gradients: Mapping[str, LayerGradient], before: list[Tensor], n: int) -> None:
        """First mini-batch: check the capture, then fix the row layout."""
        blocks = tuple(plan_block(k, self._tap.layers[k], g, self._rank) for k, g in gradients.items())
        names = [name for name, _ in self._parameters]
        change = {k: _gradient(p) - b for k, (_, p), b in zip(names, self._parameters, before, strict=True)}
        for block in blocks:
            check_layer(block, self._tap.layers[block.layer], gradients[block.layer], change, n)
        shapes = tuple((name, tuple(p.shape)) for name, p in self._parameters)
        self.spool.set_layout(Layout(blocks, self._dtype, self.rule, shapes, self._updates))

    def _append(self, samples: npt.NDArray[np.int64], gradients: Mapping[str, LayerGradient]) -> None:
        layout = self.spool.layout
        assert layout is not None
        keep = np.ones(len(samples), bool) if self._captured is None else self._captured[samples]
        chosen = torch.from_numpy(np.flatnonzero(keep))
        parts = [pack(block, _take(gradients[block.layer], chosen)) for block in layout.blocks]
        self.spool.append_visits(samples.tolist(), keep.tolist(), torch.cat(parts, 1))

    def _before_step(self, *_: Any) -> None:
        if self._norm is None:
            raise InputError(
                "optimizer.step() without a recorded mini-batch: run the backward pass inside recorder.batch(rows)"
            )
        now = self._gradient_norm()
        clip = float(now / self._norm) if float(self._norm) > 0.0 else 1.0
        flat = self._flat() if self._updates else None
        self._open = (read_lr(self.optimizer), clip, flat)

    def _after_step(self, *_: Any) -> None:
        assert self._open is not None
        lr, clip, before = self._open
        parameters = [p for _, p in self._parameters]
        scaling = preconditioner(self.optimizer, parameters, self.rule) if self.rule.preconditioned else None
        change = None if before is None else self._flat() - before
        updates = [change[torch.from_numpy(kept)] for kept in self._coordinates.values() if change is not None]
        self.spool.append_step(Step(lr, clip, step_count(self.optimizer, parameters[0])), scaling, updates)
        self._norm = self._open = None

    def _flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for _, p in self._parameters])

    def _gradient_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([_gradient(p) for _, p in self._parameters])

    def _kept(self, fraction: float) -> npt.NDArray[np.int64]:
        return subset([tuple(p.shape) for _, p in self._parameters], fraction, "updates")


def check_layer(block: Block, layer: nn.Module, gradient: LayerGradient, change: Mapping[str, Tensor], n: int) -> None:
    """Compare the samples' shares with what autograd added to `.grad`; raises UnsupportedModel naming the layer."""
    shares = _by_parameter(block, gradient)
    # a bias before a normalisation has gradient zero up to rounding: measured by its layer's largest
    layer_scale = max(float(change[name].norm()) for name in block.parameters)
    for name in block.parameters:
        total = shares[name].sum(0).reshape(change[name].shape)
        error, scale = float((total - change[name]).norm()), float(change[name].norm())
        if len(shares[name]) != n or error > 1e-3 * scale + 1e-5 * layer_scale + 1e-12:
            raise UnsupportedModel(
                f"layer {block.layer!r} ({type(layer).__name__}): the samples' shares of {name!r} don't add up to its "
                f"gradient (difference {error:.2e}, gradient {scale:.2e}, {len(shares[name])} shares for {n} samples). "
                "Samples must lie in the first dimension and be treated independently; freeze the layer or replace it"
            )


def _by_parameter(block: Block, gradient: LayerGradient) -> dict[str, Tensor]:
    if isinstance(gradient, dict):
        return {name: gradient[name.rpartition(".")[2]] for name in block.parameters}
    matrix = gradient.dense()
    if len(block.parameters) == 1:
        return {block.parameters[0]: matrix}
    return {block.parameters[0]: matrix[:, :, :-1], block.parameters[1]: matrix[:, :, -1]}


def _take(gradient: LayerGradient, chosen: Tensor) -> LayerGradient:
    if isinstance(gradient, Factors):
        if len(chosen) == len(gradient.left):
            return gradient
        return Factors(gradient.left[chosen], gradient.right[chosen])
    return {k: v[chosen] for k, v in gradient.items()}


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
