"""Packages that only an object store needs, imported when one is used."""

import importlib
from typing import Any

from amnesiac.errors import SettingsError


def optional(module: str) -> Any:
    """A module of the extra amnesiac[s3]; raises SettingsError where it isn't installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"storage.url needs the package {error.name}, which isn't installed: `pip install 'amnesiac[s3]'`"
        ) from error
