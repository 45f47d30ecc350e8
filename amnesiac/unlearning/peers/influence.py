"""Influence function: one Newton step from the final weights to where the retained loss would be at its minimum."""

import torch
import torch.nn.functional as F

from amnesiac.curvature.matrices import to_flat, to_matrix
from amnesiac.training.loop import threads
from amnesiac.unlearning.peers.curvature import flat_gradient
from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.steps import loaded


def weights(start: Start, strength: float) -> Weights:
    """theta + (|R| (H + damping))^-1 sum_{i in F} g_i, in the eigenbasis, H the EK-FAC of the mean loss.

    The damping of a layer is `strength` times its mean eigenvalue (Grosse et al. take 0.1); the optimiser's weight
    decay is curvature too.
    """
    assert start.curvature is not None
    with threads(start.spec.training.threads):
        gradients, found = _gradient_sum(start), {name: value.clone() for name, value in start.original.items()}
        stay, decay = len(start.data.labels) - len(start.forget), start.spec.training.optimizer.weight_decay
        for block, layer in zip(start.curvature.blocks, start.curvature.layers, strict=True):
            inside = layer.basis.into(to_matrix(block, flat_gradient(block, gradients)))
            eigenvalues = layer.total[0] + strength * layer.total[0].mean() + decay
            step = inside / (max(1, stay) * eigenvalues.clamp_min(torch.finfo(inside.dtype).tiny))
            parts = torch.split(to_flat(block, layer.basis.out_of(step)), [torch.Size(s).numel() for s in block.shapes])
            for name, part in zip(block.parameters, parts, strict=True):
                found[name] = found[name] + part.reshape(found[name].shape)
    return found


def _gradient_sum(start: Start) -> dict[str, torch.Tensor]:
    """Sum over the forget set of the loss's gradient at the original weights, by parameter name; on the CPU."""
    model = loaded(start, start.original).eval()
    device = start.spec.training.device
    for rows in torch.split(torch.tensor(list(start.forget)), 128):
        inputs, labels = start.data.inputs[rows].to(device), start.data.labels[rows].to(device)
        F.cross_entropy(model(inputs), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.detach().cpu() for name, p in model.named_parameters() if p.grad is not None}


INFLUENCE = Peer(
    "influence",
    "one damped Newton step with the EK-FAC curvature at the final weights",
    "Koh and Liang (arXiv 1703.04730); Guo et al., Certified data removal (arXiv 1911.03030); EK-FAC as in Grosse et "
    "al. (arXiv 2308.03296)",
    ("forget data", "curvature"),
    "damping, times a layer's mean eigenvalue; smaller is stronger",
    (3.0, 10.0, 30.0, 100.0, 300.0),
    weights,
)
