"""The append-only journal of deletion requests: one JSON object a line, in a folder that git ignores.

A line that ends in a newline is a request. A last line without one was never acknowledged (its writer died):
readers pass over it, and the next append drops it. Anything else that can't be read is damage.

The first line also carries the journal's salt, which keys the derived request ids. It lies in the line, not
in a file beside it, so that journal and salt can't be parted; and it keeps ids from being guessed from the
pointer's sha256, which git publishes.
"""

import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from amnesiac.durable import sync_folder
from amnesiac.errors import RequestError, SpecMismatch, StoreError
from amnesiac.requests.lines import decode, encode
from amnesiac.requests.pointer import Pointer
from amnesiac.requests.request import DeletionRequest, RequestDraft
from amnesiac.requests.resolution import refuse_unfit

FILE_NAME = "requests.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilingResult:
    """`filed` is new in the journal; `already` was there before, or earlier in the same batch."""

    filed: tuple[DeletionRequest, ...]
    already: tuple[DeletionRequest, ...]


class Journal:
    """The journal in a folder; a missing folder or file is an empty journal."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is opened or created yet."""
        self.path = folder / FILE_NAME

    def file(self, drafts: Sequence[RequestDraft], index: pd.DataFrame) -> FilingResult:
        """Check all drafts against the data set's index, then append the new ones durably.

        When one draft is refused nothing is written. When this returns, the requests survive a power cut. When
        the process is killed meanwhile, some whole requests may stand in the journal: filing again adds the rest.

        Raises UnknownSample listing what the index doesn't hold; RequestError when a request_id is already used
        for something else, or when the journal would name the whole train split; DamagedStore when a line of
        the journal can't be read; StoreError when it can't be written.
        """
        refuse_unfit(drafts, (), index)  # before the lock, so that a refused first filing creates no file
        if not drafts:
            return FilingResult((), ())
        with self._locked(os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
            lines = _whole_lines(descriptor)
            held = decode(lines, self.path)
            salt = held.salt or secrets.token_hex(32)
            result = _sort_out(drafts, held.requests, salt)
            refuse_unfit(result.filed, held.requests, index)
            if result.filed:
                self._append(descriptor, sum(map(len, lines)), encode(result.filed, None if lines else salt))
        return result

    def requests(self, count: int | None = None) -> tuple[DeletionRequest, ...]:
        """The first `count` requests (all, if None) in the order of their filing.

        Raises SpecMismatch when there are fewer, DamagedStore naming the line that can't be read.
        """
        return decode(self._first(count), self.path).requests

    def pointer(self) -> Pointer:
        """The pointer to everything journalled until now."""
        return _point(self._first(None))

    def read_prefix(self, pointer: Pointer) -> tuple[DeletionRequest, ...]:
        """The requests that the pointer names; raises SpecMismatch unless they are in this journal unchanged."""
        lines = self._first(pointer.count)
        if _point(lines) != pointer:
            raise SpecMismatch(
                f"the first {pointer.count} lines of {self.path} aren't those the pointer names: the journal "
                "was altered or belongs to another project. Restore it from a backup (git doesn't hold it)"
            )
        return decode(lines, self.path).requests

    def _first(self, count: int | None) -> list[bytes]:
        try:
            with self._locked(os.O_RDONLY) as descriptor:
                lines = _whole_lines(descriptor)
        except FileNotFoundError:
            lines = []
        if count is not None and not 0 <= count <= len(lines):
            raise SpecMismatch(
                f"{self.path} holds {len(lines)} requests, and the first {count} were asked for: "
                "restore the journal from a backup (git doesn't hold it), or file the requests again"
            )
        return lines[:count]

    @contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        """Open the journal under a lock, shared to read, exclusive to write; it goes when the process dies."""
        descriptor = self._open(flags)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if flags & os.O_CREAT else fcntl.LOCK_SH)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, flags: int) -> int:
        try:
            if flags & os.O_CREAT:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be opened ({error.strerror}): "
                "it must be a plain file, not a link, that you may read and write"
            ) from error

    def _append(self, descriptor: int, end: int, data: bytes) -> None:
        """Write `data` after the first `end` bytes and fsync; on an error leave only those bytes."""
        torn = os.fstat(descriptor).st_size - end
        if torn:
            _log.warning("%s: dropped %d bytes of a request that was never acknowledged", self.path, torn)
            os.ftruncate(descriptor, end)
        try:
            _write(descriptor, data)
            if end == 0:
                sync_folder(self.path.parent)
                sync_folder(self.path.parent.parent)
        except BaseException as error:
            os.ftruncate(descriptor, end)
            if isinstance(error, OSError):
                raise StoreError(f"{self.path} can't be written ({error.strerror}): nothing was filed") from error
            raise


def _whole_lines(descriptor: int) -> list[bytes]:
    """The lines from the start of the file, each with its newline; a torn last one is left out."""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return [line + b"\n" for line in file.read().split(b"\n")[:-1]]


def _write(descriptor: int, data: bytes) -> None:
    """Write all and fsync. Unbuffered: a buffer would still be flushed after an error's truncation."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _point(lines: Sequence[bytes]) -> Pointer:
    return Pointer(len(lines), hashlib.sha256(b"".join(lines)).hexdigest())


def _sort_out(drafts: Sequence[RequestDraft], held: Sequence[DeletionRequest], salt: str) -> FilingResult:
    """Tell new requests from known ones by their id; raises RequestError when an id names two things."""
    known = {request.request_id: request for request in held}
    filed: list[DeletionRequest] = []
    already: list[DeletionRequest] = []
    received = datetime.now(UTC)
    for draft in drafts:
        request = draft.accept(salt, received)
        first = known.setdefault(request.request_id, request)
        if (first.kind, first.values) != (request.kind, request.values):
            raise RequestError(
                f"request_id {request.request_id!r} is already used for another request "
                f"({first.kind}, received {first.received}), and nothing was filed: give this one its own id"
            )
        (filed if first is request else already).append(first)
    return FilingResult(tuple(filed), tuple(already))
