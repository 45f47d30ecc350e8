"""Samples of the source that the settings name: listed, checked, limited, and only then decoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from amnesiac.data.listing import Listing
from amnesiac.data.samples import Labels, Rows, Samples, check_lengths, check_rows, check_samples
from amnesiac.data.sources import open_source
from amnesiac.data.subjects import subjects_from_file
from amnesiac.errors import DataError, SettingsError
from amnesiac.progress import Progress, silent
from amnesiac.seeding import numpy_generator
from amnesiac.settings import DataSettings


def load_samples(settings: DataSettings, data_root: Path | None, seed: int, progress: Progress = silent) -> Samples:
    """Read the source, its subjects and, with `settings.limit`, only the first samples of each class.

    `data_root` is the folder that holds (or receives) the published data sets; the embedded and the user's own
    sources don't need it. The limit counts the source's train and test split apart, and all samples where the source
    has no split of its own. Raises DataError naming file, row and remedy, SettingsError for settings that contradict.
    """
    _check_subject_settings(settings)
    listing = open_source(settings, data_root)
    check_lengths(listing.source, listing.labels, listing)
    if settings.subjects_file is not None:
        listing = replace(listing, subject_ids=subjects_from_file(settings.subjects_file, listing.sample_ids))
    check_rows(listing, listing.where)
    rows = _limited(listing, settings.limit, seed)
    samples = listing.select(rows, progress)
    check_samples(samples, lambda k: listing.where(int(rows[k])))
    return samples


def _check_subject_settings(settings: DataSettings) -> None:
    if settings.subject_column is None:
        return
    if settings.subjects_file is not None:
        raise SettingsError("data.subject_column and data.subjects_file both name subjects: keep one of them")
    if settings.source != "image-parquet":
        raise SettingsError(
            f"data.subject_column is read from image-parquet only, not from {settings.source!r}: use data.subjects_file"
        )


def _limited(listing: Listing, limit: int | None, seed: int) -> Rows:
    """Ascending rows that are kept."""
    everything = np.arange(len(listing), dtype=np.int64)
    if limit is None:
        return everything
    if limit < len(listing.class_names):
        raise DataError(
            f"data.limit {limit} can't keep a sample of each of the {len(listing.class_names)} classes of "
            f"{listing.source}: raise it to at least {len(listing.class_names)}"
        )
    test = np.zeros(len(listing), bool) if listing.test is None else listing.test
    parts = [everything[~test], everything[test]]
    return np.sort(np.concatenate([part[_balanced(listing.labels[part], limit, seed)] for part in parts]))


def _balanced(labels: Labels, limit: int, seed: int) -> Rows:
    """Positions of `limit` samples: the first of every class, then the second, ...

    The seed decides only the order of the classes, hence which of them get one sample more than others.
    """
    n_classes = int(labels.max(initial=-1)) + 1
    turn = numpy_generator(seed, "limit").permutation(n_classes)
    rank = np.empty(len(labels), np.int64)
    for k in range(n_classes):
        members = np.flatnonzero(labels == k)
        rank[members] = np.arange(len(members))
    return np.lexsort((turn[labels], rank))[:limit].astype(np.int64)
