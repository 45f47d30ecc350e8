"""Choosing kappa without a retrained model: pilot deletions of retained samples (method.md §3), once, when a ledger is
sealed.

Few samples (a small part of each class): a pilot deletes a tenth of the samples, drawn at random. With theory's
kappa near 1 as the target (sqrt 2: the measured middle of what is best), a larger kappa forgets less of them, a
smaller one damages the others more:

    J(kappa) = KL(kappa = sqrt 2 || kappa) on the pilot's samples + KL(original || kappa) on others

A whole class: a model that never saw a class never predicts it, and predicts the other classes about as the original
does with that class masked. Output layer and hidden layers are searched apart:

    J(kappa) = KL(masked original || kappa) on the class's samples + the same on others, among the kappas that leave
    at most 1 % of the class's samples predicted as the class

Both are means over several pilots.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amnesiac.curvature.damping import Kappa, damping
from amnesiac.curvature.estimate import Probe
from amnesiac.curvature.matrices import to_flat
from amnesiac.curvature.stored import RunCurvature
from amnesiac.progress import Progress
from amnesiac.seeding import numpy_generator

FEW = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
OUTPUT = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
HIDDEN = (1.0, 2.0, 4.0, 8.0, 16.0)
TARGET = 1.4
_PILOTS = 3
_SHOWN = 300
WIDE = 1 << 20  # parameters from which on not every kappa is tried
Rows = npt.NDArray[np.int64]
Sums = Callable[[npt.NDArray[np.int64]], list[Tensor]]


@dataclass(frozen=True)
class Choice:
    """A kappa, and what its pilot deletions did: what later deletions are judged by (unlearning/confidence.py).

    damage: mean KL in nats on samples that were not deleted;  norm: mean ||change of the weights||
    """

    kappa: Kappa
    damage: float
    norm: float


@dataclass(frozen=True)
class Pilot:
    """One model to try deletions on.

    final: the trained weights;  sums: contributions of some samples by segment, `[segments, d_out, d_in]` a layer
    candidates: samples that have contributions
    """

    probe: Probe
    curvature: RunCurvature
    final: Mapping[str, Tensor]
    sums: Sums
    candidates: npt.NDArray[np.int64]

    def few(self, given: float | None, progress: Progress) -> Choice:
        """Kappa for forget sets that take a small part of each class; `given` is not searched for."""
        generator, drawn, others = numpy_generator(self.probe.seed, "pilots"), [], []
        for _ in range(_PILOTS):
            own = generator.choice(self.candidates, max(1, len(self.candidates) // 10), replace=False)
            drawn.append(np.sort(own))
            others.append(self._others(own, generator))
        score, counter = self._few_score(drawn, others), iter(range(1, len(FEW) + 1))

        def counted(value: float) -> float:
            progress("pilot deletions", next(counter), len(FEW) if given is None else 1)
            return float(score(value)[0])

        values = FEW if given is None else (given,)
        best = walk(values, TARGET, counted) if self._wide and given is None else min(values, key=counted)
        return Choice(Kappa(best, best), *score(best)[1:].tolist())

    def whole(self, given: float | None, progress: Progress) -> Choice:
        """Kappa for forget sets that take whole classes: the best output, hidden, output in turn."""
        generator = numpy_generator(self.probe.seed, "class pilots")
        labels = self.probe.labels.numpy()[self.candidates]
        classes = generator.permutation(np.unique(labels))[:_PILOTS]
        members = [self.candidates[labels == c] for c in classes]
        pilots = self._class_pilots(classes.tolist(), members, generator)
        best = Kappa(0.5, 4.0) if given is None else Kappa(given, given)
        for turn in range(3 if given is None else 0):
            tried = [Kappa(v, best.hidden) for v in OUTPUT] if turn != 1 else [Kappa(best.output, v) for v in HIDDEN]
            scores, left = (np.array([[p(k)[n] for p in pilots] for k in tried]).mean(1) for n in range(2))
            allowed = np.flatnonzero(left <= max(0.01, float(left.min())))
            best = tried[int(allowed[scores[allowed].argmin()])]
            progress("class pilots", turn + 1, 3)
        damage, norm = np.mean([pilot(best)[2:] for pilot in pilots], 0).tolist()
        return Choice(best, damage, norm)

    def deletions(self, samples: npt.NDArray[np.int64]) -> Callable[[Kappa], dict[str, Tensor]]:
        """The weights without some samples (ascending), a small part of each class, as a function of kappa; not rounded
        to any row format.
        """
        inside, output = self._inside(samples), self.curvature.output_layer

        def deleted(kappa: Kappa) -> dict[str, Tensor]:
            values = (kappa.output if k == output else kappa.hidden for k in self._layers)
            return self._deleted([self._layers_of(k, [inside[k]], v, [None])[0] for k, v in enumerate(values)])

        return deleted

    def _few_score(self, drawn: Sequence[Rows], others: Sequence[Rows]) -> Callable[[float], npt.NDArray[np.float64]]:
        """J, damage and norm of a kappa, `[3]`, means over pilots that delete `drawn`."""
        sums, shown = [self._inside(own) for own in drawn], [own[:_SHOWN] for own in drawn]
        before = [self._log_softmax(self.final, rows) for rows in others]

        @cache
        def tried(value: float) -> list[tuple[Tensor, float, float]]:
            """Of each pilot: predictions for what was deleted, damage, norm."""
            parts = [self._layers_of(k, [own[k] for own in sums], value, [None] * len(sums)) for k in self._layers]
            models, found = [self._deleted(own) for own in zip(*parts, strict=True)], []
            for k, model in enumerate(models):
                damage = _kl(before[k], self._log_softmax(model, others[k]))
                found.append((self._log_softmax(model, shown[k]), damage, self._norm(model)))
            return found

        def score(value: float) -> npt.NDArray[np.float64]:
            trials = []
            for (target, _, _), (own, damage, norm) in zip(tried(TARGET), tried(value), strict=True):
                trials.append((_kl(target, own) + damage, damage, norm))
            means: npt.NDArray[np.float64] = np.mean(trials, 0)
            return means

        return score

    def _norm(self, weights: Mapping[str, Tensor]) -> float:
        names = [name for block in self.curvature.blocks for name in block.parameters]
        return float(sum((weights[name] - self.final[name]).square().sum() for name in names) ** 0.5)

    def _class_pilots(
        self, labels: Sequence[int], members: Sequence[Rows], generator: np.random.Generator
    ) -> list[Callable[[Kappa], tuple[float, float, float, float]]]:
        """For each class: J of a kappa, the share of its samples still predicted as the class, damage, norm."""
        forgotten = [F.one_hot(torch.tensor(label), len(self.curvature.counts)).float() for label in labels]
        sums = [self._inside(own) for own in members]

        @cache
        def parts(layer: int, value: float) -> list[Tensor]:
            return self._layers_of(layer, [own[layer] for own in sums], value, forgotten)

        def deleted(pilot: int, kappa: Kappa) -> dict[str, Tensor]:
            output = self.curvature.output_layer
            values = (kappa.output if k == output else kappa.hidden for k in self._layers)
            return self._deleted([parts(k, value)[pilot] for k, value in enumerate(values)])

        return [
            self._class_pilot(label, own, generator, partial(deleted, pilot))
            for pilot, (label, own) in enumerate(zip(labels, members, strict=True))
        ]

    def _class_pilot(
        self, label: int, members: Rows, generator: np.random.Generator, deleted: Callable[[Kappa], dict[str, Tensor]]
    ) -> Callable[[Kappa], tuple[float, float, float, float]]:
        """J, left, damage and norm of a kappa; deleted: the model without the class."""
        samples = np.sort(generator.permutation(members)[:_SHOWN]), self._others(members, generator)
        targets = [_masked(self._log_softmax(self.final, rows), label) for rows in samples]

        @cache
        def score(kappa: Kappa) -> tuple[float, float, float, float]:
            model = deleted(kappa)
            found = [self._log_softmax(model, rows) for rows in samples]
            own, damage = (_kl(target, own) for target, own in zip(targets, found, strict=True))
            return own + damage, float((found[0].argmax(1) == label).float().mean()), damage, self._norm(model)

        return score

    def _inside(self, samples: npt.NDArray[np.int64]) -> list[Tensor]:
        """Their contributions in the eigenbasis."""
        return [layer.basis.into(own) for layer, own in zip(self.curvature.layers, self.sums(samples), strict=True)]

    @property
    def _layers(self) -> range:
        return range(len(self.curvature.blocks))

    @property
    def _wide(self) -> bool:
        return sum(block.numel for block in self.curvature.blocks) > WIDE

    def _layers_of(
        self, layer: int, inside: Sequence[Tensor], value: float, forgotten: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """A layer's change in each pilot, from its sums in the eigenbasis; pilots share weights where they can."""
        kappa, block, own = Kappa(value, value), self.curvature.blocks[layer], self.curvature.layers[layer]
        alike = own.by_class is None or all(classes is None for classes in forgotten)
        common = damping(self.curvature, layer, kappa) if alike else None
        found = []
        for sums, classes in zip(inside, forgotten, strict=True):
            weights = damping(self.curvature, layer, kappa, classes) if common is None else common
            change = own.basis.out_of((weights.to(sums.dtype) * sums).sum(0))
            found.append(to_flat(block, change).flatten())
        return found

    def _deleted(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights with these layers' changes added."""
        changed = dict(self.final)
        for block, part in zip(self.curvature.blocks, parts, strict=True):
            sizes = [torch.Size(shape).numel() for shape in block.shapes]
            for name, own in zip(block.parameters, torch.split(part, sizes), strict=True):
                changed[name] = self.final[name] + own.reshape(self.final[name].shape)
        return changed

    @cached_property
    def _model(self) -> nn.Module:
        """Built once: initialising a wide model takes longer than trying it."""
        return self.probe.factory().eval()

    def _log_softmax(self, weights: Mapping[str, Tensor], rows: npt.NDArray[np.int64]) -> Tensor:
        model = self._model
        model.load_state_dict(dict(weights))
        with torch.no_grad():
            parts = [model(self.probe.inputs[own]) for own in torch.split(torch.from_numpy(rows), 256)]
        return torch.cat(parts).log_softmax(1)

    def _others(self, without: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        rest = np.setdiff1d(np.arange(len(self.probe.labels)), without)
        return np.sort(generator.choice(rest, min(_SHOWN, len(rest)), replace=False)) if len(rest) else without


def walk(values: Sequence[float], start: float, score: Callable[[float], float]) -> float:
    """Downhill from `start` to a value whose neighbours score no better, where trying all would take too long."""
    found: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in found:
            found[place] = score(values[place])
        return found[place]

    here = values.index(start)
    while True:
        best = min((k for k in (here, here - 1, here + 1) if 0 <= k < len(values)), key=at)
        if best == here:
            return values[here]
        here = best


def _masked(log_p: Tensor, label: int) -> Tensor:
    """Predictions with one class ruled out, the others' scaled up."""
    return log_p.index_fill(1, torch.tensor([label]), -1e9).log_softmax(1)


def _kl(target: Tensor, found: Tensor) -> float:
    """Mean KL(target || found) in nats from log probabilities."""
    return float((target.exp() * (target - found)).sum(1).mean())
