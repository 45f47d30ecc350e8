"""Samples with stable ids and subjects: read from a source, checked, split, prepared on disk, opened again."""

from amnesiac.data.erased import LeftOut, leave_out
from amnesiac.data.loading import load_samples
from amnesiac.data.opened import PreparedDataset, Split, open_dataset
from amnesiac.data.prepared import DatasetSummary, prepare_dataset
from amnesiac.data.samples import Samples, check_samples

__all__ = [
    "DatasetSummary",
    "LeftOut",
    "PreparedDataset",
    "Samples",
    "Split",
    "check_samples",
    "leave_out",
    "load_samples",
    "open_dataset",
    "prepare_dataset",
]
