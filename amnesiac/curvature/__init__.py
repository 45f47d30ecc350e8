"""Curvature along a training run, and how contributions settle in it (method.md §2)."""

from amnesiac.curvature.basis import Basis
from amnesiac.curvature.damping import Kappa, damping, settle
from amnesiac.curvature.estimate import LayerCurvature, Probe, estimate
from amnesiac.curvature.measure import measure
from amnesiac.curvature.pilot import Choice, Pilot
from amnesiac.curvature.stored import FILE, RunCurvature, from_bytes

__all__ = [
    "FILE", "Basis", "Choice", "Kappa", "LayerCurvature", "Pilot", "Probe", "RunCurvature", "damping", "estimate",
    "from_bytes", "measure", "settle",
]  # fmt: skip
