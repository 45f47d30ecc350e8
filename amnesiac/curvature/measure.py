"""From a finished spool and the snapshots of its run to the run's curvature."""

from pathlib import Path

import torch

from amnesiac.capture.spool import SpoolReader, read_spool
from amnesiac.curvature.estimate import Probe, estimate
from amnesiac.curvature.stored import RunCurvature, mean_preconditioners, segment_rates
from amnesiac.curvature.whitening import Whitening, split_by_block, unit, whiten
from amnesiac.progress import Progress, silent


def measure(spool_folder: Path, probe: Probe, clip_quantile: float, progress: Progress = silent) -> RunCurvature:
    """Curvature of every layer in every segment, one segment a snapshot of `probe`."""
    with read_spool(spool_folder) as spool:
        segments = len(probe.snapshots)
        whitenings = _whitenings(spool, segments, clip_quantile)
        plain = [[unit(block) for block in spool.layout.blocks]] * segments
        layers = estimate(probe, spool.layout.blocks, whitenings or plain, progress)
        return RunCurvature(
            spool.layout.blocks,
            tuple(layers),
            tuple(map(tuple, whitenings)) if whitenings else None,
            segment_rates(spool.layout.rule, spool.steps, segments),
            tuple(torch.bincount(probe.labels, minlength=probe.classes).tolist()),
        )


def _whitenings(spool: SpoolReader, segments: int, clip_quantile: float) -> list[list[Whitening]] | None:
    if spool.preconditioners is None:
        return None
    means = mean_preconditioners(spool.preconditioners, segments)
    blocks, eps = spool.layout.blocks, spool.layout.rule.eps
    return [
        [
            whiten(block, own, clip_quantile, eps)
            for block, own in zip(blocks, split_by_block(blocks, mean), strict=True)
        ]
        for mean in means
    ]
