"""Capture while training: hooks, per-sample gradients, what the optimiser makes of them, and the spool they go to."""

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool

__all__ = ["Recorder", "Spool"]
