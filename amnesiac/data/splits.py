"""Who trains, who validates, who tests: the source's own test split, or one drawn by the seed, class by class."""

import numpy as np

from amnesiac.data.samples import Labels, Rows, Samples, check_classes_filled
from amnesiac.seeding import numpy_generator
from amnesiac.settings import DataSettings

SPLIT_NAMES = ("train", "validation", "test")


def split_rows(samples: Samples, settings: DataSettings, seed: int) -> dict[str, Rows]:
    """Ascending rows of `train`, `validation` and `test`, disjoint and together all rows.

    `test_fraction` of all samples where the source has no test split, `validation_fraction` of the remaining training
    samples. Raises DataError naming a class that is left without a training sample.
    """
    everything = np.arange(len(samples), dtype=np.int64)
    if samples.test is None:
        test = stratified_draw(samples.labels, settings.test_fraction, seed, "test")
    else:
        test = everything[samples.test]
    rest = np.setdiff1d(everything, test)
    validation = rest[stratified_draw(samples.labels[rest], settings.validation_fraction, seed, "validation")]
    train = np.setdiff1d(rest, validation)
    _check_train(samples, train, settings)
    return {"train": train, "validation": validation, "test": test}


def stratified_draw(labels: Labels, fraction: float, seed: int, name: str) -> Rows:
    """Ascending positions of `round(fraction * n)` samples, every class in proportion (to within one sample)."""
    quota = _quota(np.bincount(labels), fraction)
    drawn = [
        numpy_generator(seed, "split", name, k).permutation(np.flatnonzero(labels == k))[:count]
        for k, count in enumerate(quota.tolist())
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))


def _quota(counts: Rows, fraction: float) -> Rows:
    """Samples to draw of each class: rounded down, what is missing to the total given by largest remainder."""
    exact = counts * fraction
    quota: Rows = np.floor(exact).astype(np.int64)
    short = round(float(counts.sum()) * fraction) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
    return quota


def _check_train(samples: Samples, train: Rows, settings: DataSettings) -> None:
    fractions = f"test_fraction {settings.test_fraction}, validation_fraction {settings.validation_fraction}"
    if samples.test is not None:
        fractions = f"validation_fraction {settings.validation_fraction}"
    source = f"{samples.source} with data.{fractions}"
    check_classes_filled(samples.labels[train], None, samples.class_names, source)
