"""Which samples are captured while training, and which of them get rows when the ledger is sealed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amnesiac.errors import SettingsError
from amnesiac.settings import CaptureSettings
from amnesiac.training.loop import TrainingData


def captured_samples(settings: CaptureSettings, data: TrainingData) -> npt.NDArray[np.bool_] | None:
    """The samples of the classes that are captured, `[n]`; None for all. Raises SettingsError where there is none."""
    if settings.classes is None:
        return None
    mask: npt.NDArray[np.bool_] = np.isin(data.labels.numpy(), settings.classes)
    if not mask.any():
        raise SettingsError(f"capture.classes {list(settings.classes)}: no training sample has one of these labels")
    return mask


def sealed_samples(
    only: Sequence[int] | None, captured: npt.NDArray[np.bool_] | None, n: int
) -> npt.NDArray[np.bool_] | None:
    """The samples that get rows, `[n]`: those captured, and of them only the ones named; None for all."""
    if only is None:
        return captured
    chosen = np.zeros(n, bool)
    chosen[list(only)] = True
    return chosen if captured is None else chosen & captured
