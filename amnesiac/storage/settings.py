"""The section `storage` of params.yaml: a URL, and nothing that is secret."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from amnesiac.errors import SettingsError
from amnesiac.section import Settings
from amnesiac.storage.address import parse_address

_SECRET = re.compile("key|secret|token|password|credential", re.IGNORECASE)


class StorageSettings(Settings):
    """Where what is large, and what others load, lies besides this machine (docs/storage.md)."""

    url: str | None = Field(None, description="s3://BUCKET/PREFIX, of this project alone; null: this machine only")

    @model_validator(mode="before")
    @classmethod
    def _no_credentials(cls, given: Any) -> Any:
        if isinstance(given, dict) and any(_SECRET.search(str(name)) for name in given):
            raise ValueError(
                "credentials don't belong into params.yaml, which is in git: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in the environment, and withdraw those that were written here"
            )
        return given

    @field_validator("url")
    @classmethod
    def _url_without_secrets(cls, url: str | None) -> str | None:
        return storage_url(url)


def storage_url(url: str | None) -> str | None:
    """A checked URL in its shortest form; raises ValueError, as pydantic wants it."""
    try:
        return None if url is None else parse_address(url).url
    except SettingsError as error:
        raise ValueError(str(error)) from None
