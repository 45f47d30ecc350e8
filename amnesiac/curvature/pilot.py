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
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from amnesiac.curvature.damping import Kappa, settle_inside
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
        generator, values = numpy_generator(self.probe.seed, "pilots"), FEW if given is None else (given,)
        found = []
        for pilot in range(_PILOTS):
            drawn = generator.choice(self.candidates, max(1, len(self.candidates) // 10), replace=False)
            found.append(self._few_trials(values, np.sort(drawn), self._others(drawn, generator)))
            progress("pilot deletions", pilot + 1, _PILOTS)
        means = np.mean(found, 0)
        best = int(means[:, 0].argmin())
        return Choice(Kappa(values[best], values[best]), *means[best, 1:].tolist())

    def whole(self, given: float | None, progress: Progress) -> Choice:
        """Kappa for forget sets that take whole classes: the best output, hidden, output in turn."""
        generator = numpy_generator(self.probe.seed, "class pilots")
        labels = self.probe.labels.numpy()[self.candidates]
        classes = generator.permutation(np.unique(labels))[:_PILOTS]
        pilots = [self._class_pilot(c, self.candidates[labels == c], generator) for c in classes.tolist()]
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
        inside = self._inside(samples)
        return lambda kappa: self._deleted([self._layer(k, inside[k], kappa, None) for k in self._layers])

    def _few_trials(
        self, values: Sequence[float], drawn: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """J, damage and norm of each kappa, `[kappas, 3]`."""
        sums, shown = self._inside(drawn), drawn[:_SHOWN]
        before = self._log_softmax(self.final, others)
        target = self._log_softmax(self._few_model(sums, TARGET), shown)
        trials = []
        for value in values:
            model = self._few_model(sums, value)
            damage = _kl(before, self._log_softmax(model, others))
            trials.append((_kl(target, self._log_softmax(model, shown)) + damage, damage, self._norm(model)))
        return np.array(trials)

    def _few_model(self, sums: Sequence[Tensor], value: float) -> dict[str, Tensor]:
        return self._deleted([self._layer(k, sums[k], Kappa(value, value), None) for k in self._layers])

    def _norm(self, weights: Mapping[str, Tensor]) -> float:
        names = [name for block in self.curvature.blocks for name in block.parameters]
        return float(sum((weights[name] - self.final[name]).square().sum() for name in names) ** 0.5)

    def _class_pilot(
        self, label: int, members: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> Callable[[Kappa], tuple[float, float, float, float]]:
        """J of a kappa, the share of the class's samples that are still predicted as the class, damage, norm."""
        forgotten = F.one_hot(torch.tensor(label), len(self.curvature.counts)).float()
        sums, samples = (
            self._inside(members),
            (np.sort(generator.permutation(members)[:_SHOWN]), self._others(members, generator)),
        )
        targets = [_masked(self._log_softmax(self.final, rows), label) for rows in samples]

        @cache
        def part(layer: int, value: float) -> Tensor:
            return self._layer(layer, sums[layer], Kappa(value, value), forgotten)

        @cache
        def score(kappa: Kappa) -> tuple[float, float, float, float]:
            output = self.curvature.output_layer
            model = self._deleted([part(k, kappa.output if k == output else kappa.hidden) for k in self._layers])
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

    def _layer(self, layer: int, inside: Tensor, kappa: Kappa, forgotten: Tensor | None) -> Tensor:
        return to_flat(
            self.curvature.blocks[layer], settle_inside(self.curvature, layer, inside, kappa, forgotten)
        ).flatten()

    def _deleted(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights with these layers' changes added."""
        changed = dict(self.final)
        for block, part in zip(self.curvature.blocks, parts, strict=True):
            sizes = [torch.Size(shape).numel() for shape in block.shapes]
            for name, own in zip(block.parameters, torch.split(part, sizes), strict=True):
                changed[name] = self.final[name] + own.reshape(self.final[name].shape)
        return changed

    def _log_softmax(self, weights: Mapping[str, Tensor], rows: npt.NDArray[np.int64]) -> Tensor:
        model = self.probe.factory()
        model.load_state_dict(dict(weights))
        model.eval()
        with torch.no_grad():
            parts = [model(self.probe.inputs[own]) for own in torch.split(torch.from_numpy(rows), 256)]
        return torch.cat(parts).log_softmax(1)

    def _others(self, without: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        rest = np.setdiff1d(np.arange(len(self.probe.labels)), without)
        return np.sort(generator.choice(rest, min(_SHOWN, len(rest)), replace=False)) if len(rest) else without


def _masked(log_p: Tensor, label: int) -> Tensor:
    """Predictions with one class ruled out, the others' scaled up."""
    return log_p.index_fill(1, torch.tensor([label]), -1e9).log_softmax(1)


def _kl(target: Tensor, found: Tensor) -> float:
    """Mean KL(target || found) in nats from log probabilities."""
    return float((target.exp() * (target - found)).sum(1).mean())
