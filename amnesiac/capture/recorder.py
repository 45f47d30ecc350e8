"""Records every sample's contribution while any training loop runs: hooks on the model, hooks on the optimiser, a
spool.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amnesiac.capture.attribution import Step, preconditioner, read_lr, read_rule, step_count
from amnesiac.capture.blocks import Block, plan_block, trainable
from amnesiac.capture.coordinates import subset
from amnesiac.capture.hooks import Calls, GradientTap, LayerChoice, shares
from amnesiac.capture.layers import LayerGradient
from amnesiac.capture.packing import Visits, can_wait
from amnesiac.capture.spool import Layout, Spool
from amnesiac.capture.writer import SpoolWriter
from amnesiac.errors import InputError, UnsupportedModel

LOW_PRECISION = 0.05
"""How far shares may be from a layer's gradient, relative, that autocast computed with 8 bits of mantissa."""


class Recorder:
    """Feeds a spool from a training loop.

    with recorder.batch(rows):      # positions of the mini-batch's samples, in its order
        loss.backward()
    optimizer.step()                # recorded through the optimiser's own hooks

    What the hooks saw is packed and written by a thread of its own (writer.py): its errors are raised by the next call,
    at the latest by `close`.

    The loss must be a sum over samples divided by the *scheduled* mini-batch size, so that leaving a sample out of the
    run doesn't change the others' shares. The first mini-batch is checked layer by layer against the gradients that
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
        clipping: bool = True,
        steps: bool = True,
        layers: LayerChoice = None,
    ) -> None:
        """Attach to model and optimiser.

        captured: which samples are kept, all if None;  rank: of convolution shares, None for exact;
        updates:  fraction of coordinates of whole-batch updates to keep, by ledger name;
        samples:  how many there are, to refuse positions outside at once;
        clipping: whether the loop may scale the gradients before a step; without, none of their norms is computed;
        steps:    whether preconditioners and whole updates are kept; of several processes, which have them alike, one
                  does.
        layers:   which are captured (hooks.chosen_layers), all if None: a deletion leaves the others as they are.
        Raises UnsupportedModel, UnsupportedOptimizer, SettingsError.
        """
        try:
            self.rule, self._tap = read_rule(optimizer), GradientTap(model, layers)
        except InputError:
            spool.close()
            raise
        self.model, self.optimizer, self.spool = model, optimizer, spool
        self._samples, self._step, self._writer = samples, spool.steps, SpoolWriter(spool, self._tap.layers)
        self._later = [name for name, layer in self._tap.layers.items() if can_wait(layer)]
        self._now = {name: layer for name, layer in self._tap.layers.items() if name not in self._later}
        self._clipping = clipping
        self._captured, self._rank, self._dtype, self._updates = captured, rank, dtype, dict(updates or {})
        self._keeps_steps = steps
        owned = {id(p) for layer in self._tap.layers.values() for _, p in trainable(layer)}
        self._parameters = [(k, p) for k, p in model.named_parameters() if id(p) in owned]
        self._coordinates = {k: self._kept(f) for k, f in self._updates.items()}
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._smallest = min((p for _, p in self._parameters), key=torch.numel)
        self._norm: Tensor | None = None
        self._seen: Tensor | None = None
        self._recorded: list[tuple[int, int]] | None = None
        self._open: tuple[float, float, Tensor | None] | None = None
        self._unstepped = self._infinite = False

    @contextmanager
    def batch(self, rows: Sequence[int] | npt.NDArray[np.int64] | Tensor) -> Iterator[None]:
        """Record one forward and backward pass over the samples `rows`.

        A mini-batch may be computed in parts, whose gradients add up: several of these blocks before a step.
        """
        samples = np.asarray(rows, np.int64)
        if len(samples) and not 0 <= samples.min() <= samples.max() < (self._samples or np.inf):
            raise InputError(
                f"rows reach from {samples.min()} to {samples.max()}, and there are {self._samples} samples"
            )
        self._go_on()
        before = None if self.spool.layout else [_gradient(p).clone() for _, p in self._parameters]
        self._tap.start()
        yield
        calls = self._tap.calls()
        if before is not None:
            self._begin(calls, before, len(samples))
        self._unstepped = True
        self._writer.visits(self._visits(samples, calls))
        self.summed()

    def summed(self) -> None:
        """The gradients are as the step is to have them, but for clipping: after a backward pass, and once those of
        other processes have been added.
        """
        self._norm, self._recorded = self._gradient_norm() if self._clipping else None, self._versions()
        self._seen = _gradient(self._smallest).clone() if self._clipping else None

    def sync(self) -> dict[str, int]:
        """Make everything recorded durable; the spool's file sizes to go on from."""
        self._leave_skipped()
        self._writer.drain()
        return self.spool.sync()

    def when_written(self, action: Callable[[dict[str, int]], object]) -> None:
        """Once everything so far is durable, do `action(file sizes to go on from)`; training needn't wait for it."""
        self._leave_skipped()
        self._writer.then(lambda: action(self.spool.sync()))

    def close(self) -> None:
        """Detach all hooks and close the spool."""
        self._tap.remove()
        for handle in self._handles:
            handle.remove()
        try:
            if self._unstepped:
                self._leave_out()
        finally:
            try:
                self._writer.close()
            finally:
                self.spool.close()

    @torch.no_grad()
    def _begin(self, calls: Mapping[str, Calls], before: list[Tensor], n: int) -> None:
        """First mini-batch: check the capture, then fix the row layout; later where its gradients aren't finite, as
        those of a loss scale that is still too large.
        """
        gradients = {name: shares(name, layer, calls[name]) for name, layer in self._tap.layers.items()}
        blocks = tuple(plan_block(k, self._tap.layers[k], g, self._rank) for k, g in gradients.items())
        names = [name for name, _ in self._parameters]
        change = {k: _gradient(p) - b for k, (_, p), b in zip(names, self._parameters, before, strict=True)}
        self._infinite = not all(bool(values.isfinite().all()) for values in change.values())
        if self._infinite:
            return
        for block in blocks:
            tolerance = LOW_PRECISION if any(call.low for call in calls[block.layer]) else 1e-3
            check_layer(block, self._tap.layers[block.layer], gradients[block.layer], change, n, tolerance)
        shapes = tuple((name, tuple(p.shape)) for name, p in self._parameters)
        self.spool.set_layout(Layout(blocks, self._dtype, self.rule, shapes, self._updates))

    def _visits(self, samples: npt.NDArray[np.int64], calls: Mapping[str, Calls]) -> Visits:
        """The mini-batch for the writer; what can't wait is computed now."""
        kept = np.ones(len(samples), bool) if self._captured is None else self._captured[samples]
        later = {name: [call.kept() for call in calls[name]] for name in self._later}
        done = {name: torch.no_grad()(shares)(name, layer, calls[name]) for name, layer in self._now.items()}
        return Visits(samples, kept, self._step, later, done)

    def _before_step(self, *_: Any) -> None:
        if self._recorded is None:
            raise InputError(
                "optimizer.step() without a recorded mini-batch: run the backward pass inside recorder.batch(rows)"
            )
        if self._infinite:
            raise InputError(
                "the first mini-batch's gradients aren't finite, and a step is taken with them: lower the learning "
                "rate or the loss scale, or step through torch.amp.GradScaler, which leaves such steps out"
            )
        flat = self._flat() if self._updates and self._keeps_steps else None
        self._open = (read_lr(self.optimizer), self._factor(), flat)

    def _after_step(self, *_: Any) -> None:
        assert self._open is not None
        lr, clip, before = self._open
        parameters = [p for _, p in self._parameters]
        scales = self.rule.preconditioned and self._keeps_steps
        scaling = preconditioner(self.optimizer, parameters, self.rule) if scales else None
        change = None if before is None else self._flat() - before
        updates = [change[torch.from_numpy(kept)] for kept in self._coordinates.values() if change is not None]
        self._writer.step(Step(lr, clip, step_count(self.optimizer, parameters[0])), scaling, updates)
        self._norm = self._recorded = self._open = None
        self._step, self._unstepped = self._step + 1, False

    def _go_on(self) -> None:
        """Before a mini-batch: it is added to the former ones of this step, or those were left out and zeroed."""
        if not (self._unstepped and self._changed()):
            return
        if any(p.grad is not None and bool(p.grad.any()) for _, p in self._parameters):
            raise InputError(
                "gradients were changed between two recorded mini-batches of a step: scale or clip them once, after "
                "the last; or set them to zero first (optimizer.zero_grad()) where the step was left out"
            )
        self._leave_out()

    def _leave_skipped(self) -> None:
        """GradScaler takes no step where unscaled gradients aren't finite: neither does the spool."""
        if self._unstepped and (self._changed() or not self._finite()):
            self._leave_out()

    def _leave_out(self) -> None:
        """Mini-batches since the last step have no share in the weights."""
        self._writer.leave_out(self._step)
        self._unstepped = self._infinite = False
        self._norm = self._recorded = None

    def _factor(self) -> float:
        """The factor by which the gradients were scaled since the backward pass."""
        if not self._changed():
            return 1.0
        if self._norm is None:
            raise InputError("gradients were changed before the step: make the recorder with clipping=True")
        return float(self._gradient_norm() / self._norm) if float(self._norm) > 0.0 else 1.0

    def _versions(self) -> list[tuple[int, int]]:
        """Tell whether somebody has changed a gradient, without reading it."""
        return [(id(p.grad), 0 if p.grad is None else p.grad._version) for _, p in self._parameters]

    def _changed(self) -> bool:
        """Whether gradients were scaled or zeroed since the backward pass. GradScaler's unscaling leaves their versions
        as they were: the smallest gradient is compared, where the loop may scale them.
        """
        if self._versions() != self._recorded:
            return True
        return self._seen is not None and not _same(self._seen, _gradient(self._smallest))

    def _finite(self) -> bool:
        return all(bool(_gradient(p).isfinite().all()) for _, p in self._parameters)

    def _flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for _, p in self._parameters])

    def _gradient_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([_gradient(p) for _, p in self._parameters])

    def _kept(self, fraction: float) -> npt.NDArray[np.int64]:
        return subset([tuple(p.shape) for _, p in self._parameters], fraction, "updates")


def check_layer(
    block: Block,
    layer: nn.Module,
    gradient: LayerGradient,
    change: Mapping[str, Tensor],
    n: int,
    tolerance: float = 1e-3,
) -> None:
    """Compare the samples' shares with what autograd added to `.grad`; raises UnsupportedModel naming the layer."""
    shares = _by_parameter(block, gradient)
    # a bias before a normalisation has gradient zero up to rounding: measured by its layer's largest
    layer_scale = max(float(change[name].norm()) for name in block.parameters)
    for name in block.parameters:
        total = shares[name].sum(0).reshape(change[name].shape)
        error, scale = float((total - change[name]).norm()), float(change[name].norm())
        if len(shares[name]) != n or error > tolerance * (scale + 0.01 * layer_scale) + 1e-12:
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


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
