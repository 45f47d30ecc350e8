"""The sources of samples, one small file a kind; `open_source` picks by `data.source`."""

from pathlib import Path

from amnesiac.data.listing import Listing
from amnesiac.data.sources.embedded import list_mnist_5k
from amnesiac.data.sources.image_folder import list_image_folder
from amnesiac.data.sources.image_parquet import list_image_parquet
from amnesiac.data.sources.npz import list_npz
from amnesiac.data.sources.published import list_published
from amnesiac.errors import SettingsError
from amnesiac.settings import DataSettings

__all__ = ["open_source"]


def open_source(settings: DataSettings, data_root: Path | None) -> Listing:
    """List the rows of the source that `settings` name; raises DataError where it is missing or malformed."""
    if settings.source == "mnist-5k":
        return list_mnist_5k()
    if settings.source == "image-parquet":
        return list_image_parquet(_path(settings), settings.label_column, settings.subject_column)
    if settings.source == "image-folder":
        return list_image_folder(_path(settings))
    if settings.source == "npz":
        return list_npz(_path(settings))
    return list_published(settings.source, data_root)


def _path(settings: DataSettings) -> Path:
    if settings.path is None:
        raise SettingsError(f"source {settings.source!r} needs data.path: name the file or folder")
    return settings.path
