"""Choosing each peer's strength: the same number of trials for each, on pilots, never on what is reported.

A trial forgets a pilot set and is judged against retraining without it, by KL(retrained || model) on the pilot set plus
that on the retained samples; the lowest mean over the pilot runs is taken. Test samples play no part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from amnesiac.evaluation import kl, predict
from amnesiac.training import retrain_without
from amnesiac.unlearning.peers import PEERS
from benchmarks.compare_cases import data_of, key_of
from benchmarks.compare_recording import Plain, Weights, train
from benchmarks.compare_run import timed
from benchmarks.forgetting_cases import MISLABELLED, Config

Trial = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """All trials of one case on one pilot run."""

    config: Config
    case: str
    pilot: Sequence[int]
    seed: int
    data_root: Path | None

    @property
    def key(self) -> str:
        """Name in the cache: other strengths are another entry."""
        strengths = {name: peer.strengths for name, peer in PEERS.items()}
        facts = {"pilot": list(self.pilot), "strengths": strengths, "case": self.case}
        return key_of("search", self.config, seed=self.seed, **facts)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.config.name}, pilot seed {self.seed}: {self.case}"

    @property
    def cost(self) -> float:
        """Seconds, roughly: they decide only the order."""
        return 10 * self.config.training.epochs * self.config.epoch_seconds


def run_search(job: Search) -> list[Trial]:
    """Every trial's score (None: not finite) and CPU seconds."""
    torch.set_num_threads(job.config.training.threads)
    data = data_of(job.config, job.data_root, job.pilot if job.case == MISLABELLED else ())
    plain = train(job.config, data, job.seed)
    retrained = retrain_without(plain.spec, plain.factory, data.train, job.pilot).weights
    score, start = _Score(plain, job.pilot, retrained), plain.start(job.pilot)
    trials = []
    for peer in PEERS.values():
        for strength in peer.strengths:
            weights, seconds = timed(partial(peer.run, start, strength))
            own = score(weights)
            trials.append({
                "case": job.case, "peer": peer.name, "strength": strength, "seed": job.seed,
                "score": own if math.isfinite(own) else None, "seconds": seconds,
            })  # fmt: skip
    return trials


class _Score:
    """KL on the pilot set + KL on the retained samples, of weights against the retrained model."""

    def __init__(self, plain: Plain, pilot: Sequence[int], retrained: Weights) -> None:
        self._model = plain.factory()
        gone = torch.zeros(len(plain.data.train), dtype=torch.bool)
        gone[list(pilot)] = True
        self._sets = [plain.data.train.inputs[mask] for mask in (gone, ~gone)]
        self._reference = self._logits(retrained)

    def __call__(self, weights: Weights) -> float:
        """Infinite or no number where the model diverged."""
        return sum(kl(a, b) for a, b in zip(self._reference, self._logits(weights), strict=True))

    def _logits(self, weights: Weights) -> list[torch.Tensor]:
        self._model.load_state_dict(dict(weights))
        return [predict(self._model, inputs) for inputs in self._sets]


def chosen(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """The best strength by case and peer: lowest mean score over seeds; one that diverged anywhere isn't taken."""
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for trial in trials:
        own = scores.setdefault((trial["case"], trial["peer"]), {})
        value = math.inf if trial["score"] is None else trial["score"]
        own.setdefault(trial["strength"], []).append(value)
    found: dict[str, dict[str, float]] = {}
    for (case, peer), by_strength in scores.items():
        found.setdefault(case, {})[peer] = min(by_strength, key=lambda strength: mean(by_strength[strength]))
    return found


def budget(trials: Sequence[Trial], strengths: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """What the search of each peer cost and found, a line a case and peer."""
    lines = []
    for case, by_peer in strengths.items():
        for peer, strength in by_peer.items():
            own = [trial for trial in trials if (trial["case"], trial["peer"]) == (case, peer)]
            tried = sorted({trial["strength"] for trial in own})
            lines.append({
                "case": case, "peer": peer, "meaning": PEERS[peer].meaning, "tried": tried, "chosen": strength,
                "at_an_end": strength in (tried[0], tried[-1]), "pilots": len({trial["seed"] for trial in own}),
                "cpu_seconds": sum(trial["seconds"] for trial in own),
            })  # fmt: skip
    return lines
