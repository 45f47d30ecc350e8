"""Curvature along a training run, and how contributions settle in it (method.md §2)."""

from amnesiac.curvature.estimate import LayerCurvature, Probe, estimate
from amnesiac.curvature.measure import measure
from amnesiac.curvature.stored import FILE, RunCurvature, from_bytes
from amnesiac.curvature.sweep import settle

__all__ = ["FILE", "LayerCurvature", "Probe", "RunCurvature", "estimate", "from_bytes", "measure", "settle"]
