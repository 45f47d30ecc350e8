"""Hooks that collect what the backward pass computes anyway: every layer's input and output gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from amnesiac.capture.blocks import only_trainable, trainable
from amnesiac.capture.layers import Factors, LayerGradient, rule_for
from amnesiac.errors import UnsupportedModel


class GradientTap:
    """Taps every layer of a model that owns trainable parameters.

    A forward hook that registers a hook on the *output tensor* is used, not `register_full_backward_hook`: the latter
    breaks on in-place activations. Between `start` and `take`, one forward and backward pass are seen.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach the hooks; raises UnsupportedModel when a parameter is shared between layers or nothing is
        trainable.
        """
        self.layers = tapped_layers(model)
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._edges: list[GradientEdge] = []
        self._active = False
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._forward_hook(name)) for name, layer in self.layers.items()
        ]

    def start(self) -> None:
        """Begin to listen, forgetting what was seen before."""
        self._seen, self._edges = {name: [] for name in self.layers}, []
        self._active = True

    def backward(self, loss: Tensor) -> None:
        """A backward pass that goes no further than the layers' outputs: parameters' own gradients, which nobody wants
        where only the samples' are wanted, are neither computed nor stored.
        """
        edges, self._edges = self._edges, []
        torch.autograd.grad(loss, edges, allow_unused=True)

    def take(self) -> dict[str, LayerGradient]:
        """Stop listening; per-sample gradients by layer. Raises UnsupportedModel naming a layer that was not seen."""
        self._active = False
        seen, self._seen = self._seen, {}
        with torch.no_grad():
            return {name: self._gradient(name, layer, seen[name]) for name, layer in self.layers.items()}

    def remove(self) -> None:
        """Detach all hooks."""
        for handle in self._handles:
            handle.remove()

    def _forward_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def forward(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not (self._active and torch.is_grad_enabled()):
                return
            if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
                raise UnsupportedModel(
                    f"layer {name!r} ({type(layer).__name__}) takes or returns something else than one tensor: "
                    "its per-sample gradients can't be captured. Freeze it (requires_grad_(False)) or replace it"
                )
            if not output.requires_grad:
                return
            x, calls = inputs[0].detach(), self._seen[name]
            self._edges.append(get_gradient_edge(output))  # of the tensor as it is now: the next layer may change it
            listen: Callable[[Tensor], None] = lambda b: calls.append((x, b.detach()))  # noqa: E731
            output.register_hook(listen)  # type: ignore[no-untyped-call]

        return forward

    def _gradient(self, name: str, layer: nn.Module, calls: list[tuple[Tensor, Tensor]]) -> LayerGradient:
        if not calls:
            raise UnsupportedModel(
                f"layer {name!r} ({type(layer).__name__}) has trainable parameters, but its forward was not called "
                "or its output didn't reach the loss: its share can't be captured. Freeze it or replace it "
                "(nn.MultiheadAttention, for one, uses its projections without calling them)"
            )
        rule = rule_for(layer)
        return only_trainable(layer, _summed([rule(layer, x, b) for x, b in calls]))


def tapped_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that own trainable parameters, by qualified name."""
    owners: dict[int, str] = {}
    layers = {name: layer for name, layer in model.named_modules() if trainable(layer)}
    for name, layer in layers.items():
        for key, parameter in trainable(layer):
            if owners.setdefault(id(parameter), name) != name:
                raise UnsupportedModel(
                    f"parameter {key!r} of layer {name!r} is shared with layer {owners[id(parameter)]!r}: "
                    "tied parameters can't be captured. Untie them or freeze one layer"
                )
    if not layers:
        raise UnsupportedModel("the model has no trainable parameters")
    return layers


def _summed(parts: list[LayerGradient]) -> LayerGradient:
    """The gradient of a layer that was called more than once in a forward pass."""
    if len(parts) == 1:
        return parts[0]
    factors = [part for part in parts if isinstance(part, Factors)]
    if factors:
        return Factors(torch.cat([f.left for f in factors], 1), torch.cat([f.right for f in factors], 1))
    dense = [part for part in parts if isinstance(part, dict)]
    return {key: torch.stack([part[key] for part in dense]).sum(0) for key in dense[0]}
