"""SalUn: random labels, but only the weights that matter to the forget set may change."""

import torch
from torch import Tensor

from amnesiac.unlearning.peers.peer import Peer, Start, Weights
from amnesiac.unlearning.peers.random_labels import relabelled
from amnesiac.unlearning.peers.steps import Student, batches, student

KEPT = 0.5
"""Share of the weights that may change: the authors' choice."""


def weights(start: Start, strength: float) -> Weights:
    """Random labels with every weight outside of the mask put back after each step."""
    mask = salient(start)

    @torch.no_grad()
    def restore(own: Student) -> None:
        for name, parameter in own.model.named_parameters():
            if name in mask:
                own_mask, former = (value.to(parameter.device) for value in (mask[name], start.original[name]))
                parameter.copy_(torch.where(own_mask, parameter, former))

    return relabelled(start, strength, restore)


def salient(start: Start) -> dict[str, Tensor]:
    """Bool by parameter name: the half of all weights with the largest |gradient of the forget set's loss| at the
    original weights.
    """
    with student(start, 1.0) as own:
        own.model.eval()
        for batch in batches(start, start.forget, 0, "saliency"):
            (own.loss(batch) * len(batch.positions)).backward()  # type: ignore[no-untyped-call]
        named = [(name, p) for name, p in own.model.named_parameters() if p.requires_grad]
        sizes = {name: torch.zeros_like(p) if p.grad is None else p.grad.abs() for name, p in named}
    order = torch.cat([size.flatten() for size in sizes.values()]).argsort(descending=True, stable=True)
    chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    chosen[order[: round(KEPT * len(order))]] = True
    parts = torch.split(chosen, [size.numel() for size in sizes.values()])
    return {name: part.reshape(size.shape) for (name, size), part in zip(sizes.items(), parts, strict=True)}


SALUN = Peer(
    "salun",
    "random labels, changing only the half of the weights that matter most to the forget set",
    "Fan et al., SalUn (arXiv 2310.12508)",
    ("forget data", "retained data"),
    "learning rate, times that of training's last epoch",
    (0.01, 0.1, 0.3, 1.0, 2.0),
    weights,
)
