"""Hooks that collect what the backward pass computes anyway: every layer's input and output gradient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from amnesiac.capture.blocks import only_trainable, trainable
from amnesiac.capture.layers import Factors, LayerGradient, rule_for
from amnesiac.errors import SettingsError, UnsupportedModel


@dataclass(frozen=True)
class Call:
    """What one call of a layer left: all that its samples' shares are computed from.

    x, b:    input and gradient of the loss with respect to the output, samples in the first dimension
    version: of x when it was seen
    made:    x was computed by the model; else it is the caller's tensor, who may fill it anew
    """

    x: Tensor
    b: Tensor
    version: int
    made: bool

    @property
    def low(self) -> bool:
        """Whether the layer computed in half precision."""
        return self.b.dtype in HALF or self.x.dtype in HALF

    def kept(self) -> "Call":
        """The same for later use: a tensor that isn't the model's own is copied."""
        return self if self.made else Call(self.x.clone(), self.b, 0, True)


Calls = Sequence[Call]
LayerChoice = int | Sequence[str] | None
"""`capture.layers`."""
HALF = (torch.float16, torch.bfloat16)


class GradientTap:
    """Taps every layer of a model that owns trainable parameters.

    A forward hook that registers a hook on the *output tensor* is used, not `register_full_backward_hook`: the latter
    breaks on in-place activations. Between `start` and `take`, one forward and backward pass are seen.
    """

    def __init__(self, model: nn.Module, layers: LayerChoice = None) -> None:
        """Attach the hooks to the chosen layers, all if None; raises UnsupportedModel when layers share a parameter or
        nothing is trainable, SettingsError when the choice names no layer.
        """
        self.layers = chosen_layers(model, layers)
        self._seen: dict[str, list[Call]] = {}
        self._edges: list[GradientEdge] | None = None
        self._active = False
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._forward_hook(name)) for name, layer in self.layers.items()
        ]

    def start(self, *, edges: bool = False) -> None:
        """Begin to listen, forgetting what was seen before; `edges`: so that `backward` can be used."""
        self._seen, self._edges = {name: [] for name in self.layers}, [] if edges else None
        self._active = True

    def backward(self, loss: Tensor) -> None:
        """A backward pass that goes no further than the layers' outputs: parameters' own gradients, which nobody wants
        where only the samples' are wanted, are neither computed nor stored.
        """
        edges, self._edges = self._edges or [], None
        torch.autograd.grad(loss, edges, allow_unused=True)

    def calls(self) -> dict[str, list[Call]]:
        """Stop listening; what was seen, by layer. Raises UnsupportedModel naming a layer that was not."""
        self._active = False
        seen, self._seen = self._seen, {}
        for name, layer in self.layers.items():
            if not seen[name]:
                raise UnsupportedModel(
                    f"layer {name!r} ({type(layer).__name__}) has trainable parameters, but its forward was not called "
                    "or its output didn't reach the loss: its share can't be captured. Freeze it or replace it "
                    "(nn.MultiheadAttention, for one, uses its projections without calling them)"
                )
        return seen

    def take(self) -> dict[str, LayerGradient]:
        """Stop listening; per-sample gradients by layer. Raises UnsupportedModel naming a layer that was not seen."""
        seen = self.calls()
        with torch.no_grad():
            return {name: shares(name, layer, seen[name]) for name, layer in self.layers.items()}

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
            x, calls, made = inputs[0].detach(), self._seen[name], inputs[0].requires_grad
            if self._edges is not None:  # of the tensor as it is now: the next layer may change it
                self._edges.append(get_gradient_edge(output))
            listen: Callable[[Tensor], None] = lambda b: calls.append(Call(x, b.detach(), x._version, made))  # noqa: E731
            output.register_hook(listen)  # type: ignore[no-untyped-call]

        return forward


def shares(name: str, layer: nn.Module, calls: Calls) -> LayerGradient:
    """Per-sample gradients of a layer from what was seen of it; in float32 where the layer computed in less.

    Raises UnsupportedModel where an input has been changed in place since.
    """
    if any(call.x._version != call.version for call in calls):
        raise UnsupportedModel(
            f"layer {name!r} ({type(layer).__name__}): its input was changed in place after the backward pass, before "
            "its shares were computed. Don't write into the model's tensors in the training loop, or clone that input"
        )
    rule = rule_for(layer)
    return only_trainable(layer, _summed([rule(layer, *widened(layer, call)) for call in calls]))


def widened(layer: nn.Module, call: Call) -> tuple[Tensor, Tensor]:
    """Input and output gradient, in float32 where autocast made them half; a linear map's input as rounded by it."""
    x, b = call.x, call.b
    if b.dtype in HALF and isinstance(layer, nn.Linear | nn.Conv2d):
        x = x.to(b.dtype)
    return (x.float() if x.dtype in HALF else x), (b.float() if b.dtype in HALF else b)


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


def chosen_layers(model: nn.Module, choice: LayerChoice = None) -> dict[str, nn.Module]:
    """Those of `tapped_layers` that `capture.layers` chooses: the last k, or those whose name fits one of the patterns
    (as of files: `head.*`), which must each fit one. Raises SettingsError, UnsupportedModel.
    """
    layers = tapped_layers(model)
    if choice is None:
        return layers
    if isinstance(choice, int):
        if choice > len(layers):
            raise SettingsError(
                f"capture.layers is {choice}, and the model has {len(layers)} layers: {_listed(layers)}"
            )
        return dict(list(layers.items())[-choice:])
    if unfit := [pattern for pattern in choice if not any(fnmatchcase(name, pattern) for name in layers)]:
        raise SettingsError(
            f"capture.layers: no layer is called {', '.join(map(repr, unfit))}; there are {_listed(layers)}"
        )
    return {name: layer for name, layer in layers.items() if any(fnmatchcase(name, pattern) for pattern in choice)}


def _listed(layers: Mapping[str, nn.Module]) -> str:
    names = list(layers)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _summed(parts: list[LayerGradient]) -> LayerGradient:
    """The gradient of a layer that was called more than once in a forward pass."""
    if len(parts) == 1:
        return parts[0]
    factors = [part for part in parts if isinstance(part, Factors)]
    if factors:
        return Factors(torch.cat([f.left for f in factors], 1), torch.cat([f.right for f in factors], 1))
    dense = [part for part in parts if isinstance(part, dict)]
    return {key: torch.stack([part[key] for part in dense]).sum(0) for key in dense[0]}
