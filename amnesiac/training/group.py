"""The processes that train one model together, and what they tell each other (torch.distributed).

Every process has the whole model and computes its slice of every mini-batch. Their gradients are summed, not averaged,
after the backward passes: each sample's share is then divided by the whole mini-batch's size, as on one process, and
what a process captures adds up to its own gradient. DistributedDataParallel averages during the backward pass, and
waits for ever for a process that has no sample in a mini-batch (decision 0010).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from amnesiac.errors import PeerLost, UnsupportedModel

T = TypeVar("T")
_BUCKET = 1 << 22  # numbers that are summed at once: 16 MiB


@dataclass(frozen=True)
class Group:
    """This process and the others: `rank` from 0, `count` of all. One alone talks to nobody.

    What can fail because another process is gone raises PeerLost.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process does what is done once: progress, snapshots, checkpoints."""
        return self.rank == 0

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradients by their sums over all processes: the same bits in each."""
        if self.count == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._told(lambda flat=flat: dist.all_reduce(flat))  # type: ignore[misc]
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def gathered(self, value: T) -> list[T]:
        """What every process says here, by rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        self._told(lambda: dist.all_gather_object(found, value))
        return found

    def by_first(self, work: Callable[[], T]) -> T:
        """What the first process finds, in all of them; where it fails, the others raise PeerLost saying so."""
        if self.count == 1:
            return work()
        found: list[Any] = [None, None]
        if self.leads:
            try:
                found[0] = work()
            except BaseException as error:
                found[1] = f"{type(error).__name__}: {error}"
                self._told(lambda: dist.broadcast_object_list(found))
                raise
        self._told(lambda: dist.broadcast_object_list(found))
        if found[1] is not None:
            raise PeerLost(f"the first process of the training has failed: {found[1]}")
        first: T = found[0]
        return first

    def agree(self, tensors: Mapping[str, Tensor], digest: Callable[[Tensor], str], when: str) -> None:
        """Raise UnsupportedModel unless all processes hold the same bits."""
        if self.count == 1:
            return
        mine, *others = self.gathered({name: digest(value) for name, value in tensors.items()})
        differ = [name for name, value in mine.items() if any(other.get(name) != value for other in others)]
        if differ:
            raise UnsupportedModel(
                f"{when} the {self.count} processes hold different values of {differ[0]!r} ({len(differ)} tensors "
                "differ): the model's factory must give the same weights in every process, and a forward pass may "
                "change nothing by the samples that it sees. Mend the model, or set training.processes to 1"
            )

    def _told(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise PeerLost(
                f"process {self.rank} of {self.count} of the training has lost the others: one of them has ended. "
                f"Its own error says why ({error})"
            ) from error


ALONE = Group()


def refuse_mixing(model: nn.Module, micro_batch: int | None, processes: int) -> None:
    """Raise UnsupportedModel for a layer whose result depends on which samples are computed together, where a
    mini-batch isn't computed in one piece.
    """
    if micro_batch is None and processes == 1:
        return
    cause = f"training.processes {processes}" if processes > 1 else f"training.micro_batch {micro_batch}"
    for name, layer in model.named_modules():
        if _mixes(layer):
            raise UnsupportedModel(
                f"layer {name!r} ({type(layer).__name__}) takes statistics of the samples that are computed together: "
                f"with {cause} these aren't the mini-batch's. Use GroupNorm, as the reference models do, or compute "
                "whole mini-batches in one process"
            )


def _mixes(layer: nn.Module) -> bool:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return True
    return isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one kind, of about so many numbers together."""
    found: list[list[Tensor]] = []
    for gradient in gradients:
        last = found[-1] if found else []
        alike = bool(last) and (last[0].dtype, last[0].device) == (gradient.dtype, gradient.device)
        if alike and sum(own.numel() for own in last) + gradient.numel() <= _BUCKET:
            last.append(gradient)
        else:
            found.append([gradient])
    return found
