"""Who was erased, as keyed hashes: a later `prepare` doesn't take them in again, and nobody can read who it was.

    tombstones.txt    salt HEX
                      sample HEX        HMAC-SHA-256 of the sample id under the salt
                      subject HEX       the same of a subject id
                      vanished HEX      of a subject of whom nothing was left, but who didn't ask to stay out: a later
                                        request for them names what was erased; new samples of theirs are taken in

Whoever holds this file can test a guess ("is `writer-9` here?"), so it is private (mode 0600) and no part of any
published store; without the salt a hash can't be tested. Nothing is ever taken out of it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from amnesiac.durable_lines import DurableLines
from amnesiac.errors import DamagedStore

FILE_NAME = "tombstones.txt"
Kind = Literal["sample", "subject", "vanished"]
_LINE = re.compile(rb"(sample|subject|vanished) ([0-9a-f]{64})")
_SALT = re.compile(rb"salt ([0-9a-f]{64})")


def pseudonym(salt: bytes, kind: str, name: str) -> str:
    """HMAC-SHA-256 of an id under a secret salt, as 64 hex digits; the same id as sample and as subject differs."""
    return hmac.digest(salt, f"{kind}\0{name}".encode(), hashlib.sha256).hex()


@dataclass(frozen=True)
class _Held:
    salt: bytes
    marks: frozenset[bytes]
    """Lines as they stand in the file."""

    def line(self, kind: str, name: str) -> bytes:
        return f"{kind} {pseudonym(self.salt, kind, name)}".encode()


class Tombstones:
    """The tombstones in a folder; a missing file has none."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is opened or created yet."""
        self._lines = DurableLines(folder / FILE_NAME)
        self.path = self._lines.path

    def __len__(self) -> int:
        return len(self._held(self._lines.read()).marks)

    def add(self, kind: Kind, ids: Iterable[str]) -> int:
        """Note these ids as erased, durably; how many weren't noted before. Adding them again changes nothing.

        Raises StoreError when the file can't be written, DamagedStore when a line of it can't be read.
        """
        wanted = list(dict.fromkeys(ids))
        added = 0

        def missing(lines: Sequence[bytes]) -> list[bytes]:
            nonlocal added
            held = self._held(lines) if lines else _Held(secrets.token_bytes(32), frozenset())
            new = [line for name in wanted if (line := held.line(kind, name)) not in held.marks]
            added = len(new)
            return new if lines or not new else [f"salt {held.salt.hex()}".encode(), *new]

        self._lines.extend(missing)
        return added

    def mask(self, sample_ids: Sequence[str], subject_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which samples `[n]` are erased: themselves, or by their subject. About 2 us a sample."""
        held = self._held(self._lines.read())
        samples = self._known(held, "sample", sample_ids)
        return samples | self._known(held, "subject", subject_ids)

    def contains(self) -> Callable[[Kind, str], bool]:
        """Whether an id is noted as a kind, by the file as it is now."""
        held = self._held(self._lines.read())
        return lambda kind, name: bool(held.marks) and held.line(kind, name) in held.marks

    def _known(self, held: _Held, kind: Kind, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        if not held.marks:
            return np.zeros(len(ids), np.bool_)
        known = {name: held.line(kind, name) in held.marks for name in set(ids)}
        return np.fromiter((known[name] for name in ids), np.bool_, len(ids))

    def _held(self, lines: Sequence[bytes]) -> _Held:
        if not lines:
            return _Held(b"", frozenset())
        salt = _SALT.fullmatch(lines[0])
        if salt is None:
            raise DamagedStore(f"{self.path}: line 1 must be the salt: restore the file from a backup")
        self._refuse_damage(lines[1:])
        return _Held(bytes.fromhex(salt[1].decode()), frozenset(lines[1:]))

    def _refuse_damage(self, lines: Collection[bytes]) -> None:
        for number, line in enumerate(lines, start=2):
            if not _LINE.fullmatch(line):
                raise DamagedStore(
                    f"{self.path}: line {number} isn't `sample`, `subject` or `vanished` and 64 hex digits: "
                    "restore the file from a backup (without it erased samples would be taken in again)"
                )
