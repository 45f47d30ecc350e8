"""Deterministic training: the original run with capture, retraining without the forget set, repair."""

from amnesiac.training.run import discard_scratch, record, repair, retrain_without, train_with_capture
from amnesiac.training.spec import CapturePlan, EpochRecord, RunSpec, TrainingResult

__all__ = [
    "CapturePlan",
    "EpochRecord",
    "RunSpec",
    "TrainingResult",
    "discard_scratch",
    "record",
    "repair",
    "retrain_without",
    "train_with_capture",
]
