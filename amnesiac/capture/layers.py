"""Per-sample gradients of one layer from its input and its output gradient (method.md §5).

A rule is a pure function `(layer, x, b) -> Factors | dict`, with `x` the layer's input and `b` the gradient of the
loss with
respect to its output, both with samples in the first dimension. No backward pass is needed: for a linear map
the gradient of sample i is the sum over its positions l of the outer products b[i, l] a[i, l]^T.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Factors:
    """Weight gradients `[d_out, d_in]` of n samples as sums of outer products; a bias is the last column.

    left:  [n, positions, d_out]
    right: [n, positions, d_in (+ 1)]
    """

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """`[n, d_out, d_in (+ 1)]`."""
        return self.left.transpose(1, 2) @ self.right


LayerGradient = Factors | dict[str, Tensor]
Rule = Callable[[nn.Module, Tensor, Tensor], LayerGradient]


def linear(layer: nn.Module, x: Tensor, b: Tensor) -> Factors:
    """Linear layer; extra dimensions between sample and feature are positions."""
    assert isinstance(layer, nn.Linear)
    right = x.reshape(len(x), -1, layer.in_features)
    return Factors(b.reshape(len(b), -1, layer.out_features), _with_bias(layer, right))


def conv2d(layer: nn.Module, x: Tensor, b: Tensor) -> LayerGradient:
    """Convolution as a linear map of its patches (im2col); groups are independent maps."""
    assert isinstance(layer, nn.Conv2d)
    left = b.flatten(2)
    if layer.groups == 1:
        return Factors(left.transpose(1, 2), _patches(layer, x, b, layer.bias is not None).transpose(1, 2))
    patches, n, g = _patches(layer, x, b, False), len(x), layer.groups
    weight = left.reshape(n, g, -1, left.shape[-1]) @ patches.reshape(n, g, -1, patches.shape[-1]).transpose(2, 3)
    gradient = {"weight": weight.reshape(n, *layer.weight.shape)}
    return gradient | ({"bias": left.sum(2)} if layer.bias is not None else {})


def group_norm(layer: nn.Module, x: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Affine part of GroupNorm: per-channel sums over positions."""
    assert isinstance(layer, nn.GroupNorm)
    normal = F.group_norm(x, layer.num_groups, eps=layer.eps)
    return _affine(layer, b * normal, b, lambda t: t.flatten(2).sum(2) if t.dim() > 2 else t)


def layer_norm(layer: nn.Module, x: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Affine part of LayerNorm: sums over the dimensions between sample and normalised shape."""
    assert isinstance(layer, nn.LayerNorm)
    normal = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    shape = (len(x), -1, *layer.normalized_shape)
    return _affine(layer, b * normal, b, lambda t: t.reshape(shape).sum(1))


def batch_norm(layer: nn.Module, x: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Affine part of BatchNorm: sample i's *share* of the update (statistics mix the samples of the mini-batch)."""
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    use_batch = layer.training or layer.running_mean is None
    statistics = (None, None) if use_batch else (layer.running_mean, layer.running_var)
    normal = F.batch_norm(x, *statistics, training=use_batch, eps=layer.eps)
    return _affine(layer, b * normal, b, lambda t: t.flatten(2).sum(2) if t.dim() > 2 else t)


def embedding(layer: nn.Module, x: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Embedding table: output gradients summed by the index they came from."""
    assert isinstance(layer, nn.Embedding)
    n, index = len(x), x.reshape(len(x), -1)
    rows = (torch.arange(n, device=x.device)[:, None] * layer.num_embeddings + index).flatten()
    table = b.new_zeros(n * layer.num_embeddings, layer.embedding_dim)
    kept = b.reshape(-1, layer.embedding_dim)
    if layer.padding_idx is not None:
        kept = kept * (index.flatten() != layer.padding_idx).unsqueeze(1)
    return {"weight": table.index_add_(0, rows, kept).reshape(n, layer.num_embeddings, layer.embedding_dim)}


def by_vmap(layer: nn.Module, x: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Any other layer with one tensor in and out: `torch.func` vector-Jacobian product, sample by sample.

    Slower than a rule of its own, same result. Right only if the layer treats samples independently, which the
    first mini-batch checks.
    """
    parameters = {k: p.detach() for k, p in layer.named_parameters(recurse=False) if p.requires_grad}
    rest = dict(layer.named_buffers()) | {k: p.detach() for k, p in layer.named_parameters() if k not in parameters}

    def one(sample: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        def forward(own: dict[str, Tensor]) -> Tensor:
            out: Tensor = torch.func.functional_call(layer, own | rest, (sample.unsqueeze(0),))
            return out.squeeze(0)

        pull_back = torch.func.vjp(forward, parameters)[1]
        return dict(pull_back(gradient)[0])

    shares: dict[str, Tensor] = torch.func.vmap(one, randomness="same")(x, b)
    return shares


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.Embedding: embedding,
}


def rule_for(layer: nn.Module) -> Rule:
    """The rule of exactly this layer type (a subclass may compute something else), or the `torch.func` fallback."""
    return RULES.get(type(layer), by_vmap)


def _with_bias(layer: nn.Linear | nn.Conv2d, right: Tensor) -> Tensor:
    if layer.bias is None:
        return right
    return torch.cat([right, right.new_ones(*right.shape[:2], 1)], 2)


def _patches(layer: nn.Conv2d, x: Tensor, b: Tensor, ones: bool) -> Tensor:
    """`[n, channels x kernel (+ 1), positions]`, a last row of ones for the bias. `F.unfold`'s numbers, in a third of
    its time: a strided copy for each of the kernel's taps.
    """
    padded, rows, columns = _padded(layer, x), b.shape[2], b.shape[3]
    height, width = layer.kernel_size
    (down, right), (tall, wide) = layer.stride, layer.dilation
    taps = x.shape[1] * height * width
    patches = x.new_empty(len(x), taps + ones, rows * columns)
    patches[:, taps:] = 1.0
    places = patches[:, :taps].view(len(x), x.shape[1], height * width, rows, columns)
    for k in range(height * width):
        top, left = k // width * tall, k % width * wide
        places[:, :, k] = padded[:, :, top::down, left::right][:, :, :rows, :columns]
    return patches


def _padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Padding made explicit, which covers 'same' and the reflect, replicate and circular modes too."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)


def _affine(layer: nn.Module, scaled: Tensor, b: Tensor, summed: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    shares = {"weight": scaled, "bias": b}
    return {name: summed(shares[name]) for name, _ in layer.named_parameters(recurse=False)}
