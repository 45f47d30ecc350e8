"""From a finished spool and the snapshots of its run to the run's curvature."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from amnesiac.capture.attribution import Rule
from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.curvature.estimate import Probe, estimate
from amnesiac.curvature.stored import RunCurvature, segment_rates
from amnesiac.curvature.whitening import Whitening, mean_denominators, unit, whiten
from amnesiac.progress import Progress, silent


def measure(
    spool_folder: Path,
    probe: Probe,
    bounds: Sequence[int],
    clip_quantile: float,
    weight_decay: float = 0.0,
    progress: Progress = silent,
) -> RunCurvature:
    """Curvature of every layer in every segment, one segment a snapshot of `probe`; `bounds` are their first steps
    and the number of all steps.
    """
    with read_spool(spool_folder) as spool:
        blocks, rule = spool.layout.blocks, spool.layout.rule
        whitenings = _whitenings(spool, bounds, clip_quantile)
        layers = estimate(probe, blocks, whitenings, progress)
        rates = segment_rates(rule, spool.steps, bounds)
        decays = tuple(_decays(rule, rates, weight_decay, whitening) for whitening in whitenings)
        counts = tuple(torch.bincount(probe.labels, minlength=probe.classes).tolist())
        return RunCurvature(blocks, tuple(layers), tuple(bounds), rates, decays, counts)


def _decays(rule: Rule, rates: Sequence[float], weight_decay: float, whitening: Whitening) -> tuple[float, ...]:
    """What weight decay adds to z in each segment: rate x decay, under Adam (not AdamW) times a layer's mean P."""
    if rule.kind != "adam":
        return tuple(weight_decay * rate for rate in rates)
    sides = (side for side in (whitening.left, whitening.right, whitening.root) if side is not None)
    mean = math.prod(float(side.square().mean()) for side in sides)
    return tuple(weight_decay * rate * pace * mean for rate, pace in zip(rates, whitening.pace, strict=True))


def _whitenings(spool: SpoolReader, bounds: Sequence[int], clip_quantile: float) -> list[Whitening]:
    blocks = spool.layout.blocks
    if spool.preconditioners is None:
        return [unit(block, len(bounds) - 1) for block in blocks]
    denominators = mean_denominators(spool.preconditioners, bounds)
    parts = torch.split(denominators, [block.numel for block in blocks], 1)
    eps = spool.layout.rule.eps
    return [whiten(block, own, clip_quantile, eps) for block, own in zip(blocks, parts, strict=True)]
