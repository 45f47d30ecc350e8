"""Deleting object versions for good, so that a killed purge goes on where it was and its counts stay right.

As `amnesiac.erasure.purge` does with files: what goes is listed first, durably; then it is deleted, any number of
times; the list is dropped once the caller has written the counts down.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from amnesiac.durable import write_json
from amnesiac.errors import DamagedStore
from amnesiac.storage.address import Address, parse_address
from amnesiac.storage.versions import abort_uploads, delete_versions, object_versions

OLDER = "older versions of objects"


@dataclass(frozen=True)
class PurgedObjects:
    """Versions (markers too) that went from below a URL, under the name that they are counted by, and their bytes."""

    url: str
    what: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class _Doomed:
    url: str
    what: str
    name: str
    id: str
    bytes: int


class ObjectPurge:
    """A purge with its list in the file `plan`."""

    def __init__(self, plan: Path) -> None:
        """Name the list; nothing is read yet."""
        self.plan = plan

    def add(self, address: Address, superseded: Callable[[str], str | None]) -> None:
        """List what goes from below an address, durably: whatever isn't current, and what `superseded` gives a name to.
        Uploads that nobody finished, which no list can name, end at once.

        superseded: from an object's name to what it is counted as; None for what stays. Raises StoreError.
        """
        abort_uploads(address)
        held = self._read()
        listed = {(one.url, one.name, one.id) for one in held}
        new = [
            _Doomed(address.url, superseded(one.name) or OLDER, one.name, one.id, one.bytes)
            for one in object_versions(address)
            if superseded(one.name) or not one.current or one.marker
        ]
        new = [one for one in new if (one.url, one.name, one.id) not in listed]
        write_json(self.plan, [asdict(one) for one in (*held, *new)])

    def run(self) -> tuple[PurgedObjects, ...]:
        """Delete all that is listed; what was listed. Raises StoreError."""
        doomed = self._read()
        for url in dict.fromkeys(one.url for one in doomed):
            delete_versions(parse_address(url), [(one.name, one.id) for one in doomed if one.url == url])
        return tuple(_total(key, doomed) for key in dict.fromkeys((one.url, one.what) for one in doomed))

    def close(self) -> None:
        """Drop the list: the counts are noted elsewhere."""
        self.plan.unlink(missing_ok=True)

    def _read(self) -> list[_Doomed]:
        try:
            return [_Doomed(**one) for one in json.loads(self.plan.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise DamagedStore(
                f"{self.plan}: the list of an unfinished purge can't be read: remove the file and purge again"
            ) from error


def _total(key: tuple[str, str], doomed: Iterable[_Doomed]) -> PurgedObjects:
    own = [one for one in doomed if (one.url, one.what) == key]
    return PurgedObjects(*key, len(own), sum(one.bytes for one in own))
