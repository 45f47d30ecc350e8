"""Objects below a URL: read, written whole, listed, and swapped by a conditional put. The only module with obstore.

obstore repeats what fails for reasons that pass: connections that break, answers 5xx and 429 (S3's `503 SlowDown`),
with growing pauses, `RETRIES` times and no longer than `PATIENCE`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from amnesiac.errors import StaleWriter, StoreError
from amnesiac.storage.address import Address, access, parse_address
from amnesiac.storage.package import optional

RETRIES = 10
PATIENCE = timedelta(minutes=3)
READINGS = 5
T = TypeVar("T")
_PAUSES = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2.0}


@dataclass(frozen=True)
class Stored:
    """An object: its name below the storage, and its bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Storage:
    """What lies below a prefix of a bucket. Nothing is asked of the server before the first method is called."""

    address: Address

    @property
    def url(self) -> str:
        """As `s3://bucket/prefix`."""
        return self.address.url

    def below(self, *parts: str) -> "Storage":
        """What lies below a longer prefix."""
        return Storage(self.address.below(*parts))

    def read(self, name: str) -> bytes:
        """An object's content; raises FileNotFoundError when there is none, StoreError when it can't be read."""
        return self.tagged(name)[0]

    def tagged(self, name: str) -> tuple[bytes, str]:
        """An object's content and its entity tag, which `swap` wants; raises like `read`."""

        def get() -> tuple[bytes, str]:
            found = optional("obstore").get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        return self._ask(name, get)

    def fetch(self, name: str, path: Path) -> None:
        """Write an object's content to a file, in pieces; raises like `read`."""

        def get() -> None:
            with path.open("wb") as file:
                for piece in optional("obstore").get(self._store, name).stream():
                    file.write(piece)

        self._ask(name, get)

    def write(self, name: str, content: bytes | Path) -> None:
        """Put an object, whole or not at all, over what is there; large files in parts. Raises StoreError."""
        self._ask(name, lambda: optional("obstore").put(self._store, name, content))

    def swap(self, name: str, content: bytes, expected: str | None) -> None:
        """Put an object if what is there still has the entity tag `expected` (None: if nothing is there).

        Raises StaleWriter when it was replaced meanwhile, StoreError. A put that was repeated because its answer was
        lost finds its own content there, and is no error.
        """
        errors = optional("obstore.exceptions")
        mode = "create" if expected is None else {"e_tag": expected}
        try:
            self._ask(name, lambda: optional("obstore").put(self._store, name, content, mode=mode, use_multipart=False))
        except (errors.AlreadyExistsError, errors.PreconditionError) as error:
            if self._now(name) != content:
                raise StaleWriter(
                    f"{self.url}/{name} was replaced by another writer meanwhile: nothing was changed. "
                    "Run `amnesiac status`"
                ) from error

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none. (Of a versioned bucket: see `versions`.)"""
        self._ask(name, lambda: optional("obstore").delete(self._store, name))

    def listed(self, prefix: str = "") -> tuple[Stored, ...]:
        """All objects below a prefix (a folder, as it were), by name."""

        def every() -> list[Stored]:
            pages = optional("obstore").list(self._store, prefix=prefix or None)
            return [Stored(str(one["path"]), int(one["size"])) for page in pages for one in page]

        return tuple(sorted(self._ask(prefix, every), key=lambda one: one.name))

    def _now(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    @cached_property
    def _store(self) -> Any:
        how, store = access(), optional("obstore.store")
        http = bool(how.endpoint and how.endpoint.startswith("http://"))
        return store.S3Store(
            self.address.bucket,
            prefix=self.address.prefix or None,
            region=how.region,
            client_options={"allow_http": http, "timeout": timedelta(minutes=2)},
            retry_config={"max_retries": RETRIES, "retry_timeout": PATIENCE, "backoff": _PAUSES},
            **({"endpoint": how.endpoint} if how.endpoint else {}),
        )

    def _ask(self, name: str, call: Callable[[], T]) -> T:
        """What the call returns, in our words what it raises, but for a condition that isn't met.

        obstore repeats requests, not the reading of a list or of an error's text that breaks off: that is done here.
        """
        errors = optional("obstore.exceptions")
        for left in reversed(range(READINGS)):
            try:
                return call()
            except (errors.AlreadyExistsError, errors.PreconditionError, FileNotFoundError):
                raise
            except errors.BaseError as error:
                if not left or "response body error" not in str(error):
                    raise StoreError(
                        f"{self.url}/{name} can't be reached, though what may pass was repeated: {_short(error)}. Look "
                        "at network, bucket, credentials and rights; then run the command again: it goes on from here"
                    ) from error
        raise AssertionError("the last reading returns or raises")


def _short(error: Exception) -> str:
    """Without the dump of obstore's own structures, on one line."""
    return " ".join(str(error).partition("Debug source")[0].split())


def open_storage(url: str) -> Storage:
    """The storage at a URL; raises SettingsError for a malformed one."""
    return Storage(parse_address(url))


def write_folder(storage: Storage, folder: Path, names: list[str]) -> None:
    """Put files of a folder under their names; what is there already with the same length is left out."""
    there = {one.name: one.bytes for one in storage.listed()}
    for name in names:
        if there.get(name) != (folder / name).stat().st_size:
            storage.write(name, folder / name)


def fetch_folder(storage: Storage, folder: Path) -> int:
    """Write all objects into a folder under their names; how many."""
    found = storage.listed()
    for one in found:
        (folder / one.name).parent.mkdir(parents=True, exist_ok=True)
        storage.fetch(one.name, folder / one.name)
    return len(found)
