"""The chain of receipts in a folder: one file a receipt, each holding the hash of the file before, and a signed head.

00000001.json, 00000002.json, ...   DSSE envelopes
head.json                           signed too: how many there are, and the hash of the last
public/KEYID.pem                    the public keys, of today and of before
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amnesiac.durable import write_bytes
from amnesiac.errors import DamagedReceipt
from amnesiac.receipts.facts import Receipt
from amnesiac.receipts.public_keys import PublicKey, read_public_keys
from amnesiac.receipts.signing_key import SigningKey
from amnesiac.receipts.statement import (
    Head,
    SignedReceipt,
    head_payload,
    read_head,
    read_receipt,
    receipt_payload,
    sha256,
)

HEAD, PUBLIC = "head.json", "public"
T = TypeVar("T")
_NAME = re.compile(r"(\d{8})\.json")
_PARTIAL = re.compile(r"\.(\d{8}|head)\.json\.\d+\.partial")
_RESTORE = "restore the folder from a backup; `amnesiac receipt verify` lists all that is wrong"


@dataclass(frozen=True)
class Stored:
    """A receipt and the file it lies in."""

    path: Path
    signed: SignedReceipt


def checked(path: Path, keys: Sequence[PublicKey], read: Callable[[bytes, Sequence[PublicKey]], T]) -> T:
    """Read a file of the chain; raises DamagedReceipt naming the file and what is wrong with it."""
    try:
        return read(path.read_bytes(), keys)
    except FileNotFoundError as error:
        raise DamagedReceipt(f"{path} is missing: {_RESTORE}") from error
    except DamagedReceipt as error:
        raise DamagedReceipt(f"{path} {error}") from error


class Chain:
    """The chain in a folder; a missing folder is an empty chain. Keeps in mind which request has which receipt."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is opened or created yet."""
        self.folder = folder
        self._requests: dict[str, int] = {}
        self._seen = 0

    @property
    def public(self) -> Path:
        """The folder of the public keys."""
        return self.folder / PUBLIC

    def public_keys(self) -> tuple[PublicKey, ...]:
        """The public keys that lie with the chain. Whoever can write the folder can add one: compare their ids."""
        return read_public_keys(self.public)

    def path(self, sequence: int) -> Path:
        """The file of a receipt."""
        return self.folder / f"{sequence:08d}.json"

    def numbers(self) -> list[int]:
        """The numbers that there are files for, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def append(self, receipt: Receipt, key: SigningKey) -> Stored:
        """Sign and store a receipt durably; where its request has one already, return that one and add nothing.

        Killed at any point, the chain holds the receipt or it doesn't, and appending it again ends with exactly one.
        Raises ReceiptError for malformed facts, DamagedReceipt where the chain it would go on was altered.
        """
        with self._writing():
            last = self._mend(key)
            found = self._requests.get(receipt.request.id)
            if found is not None:
                return self.read(found)
            data = key.sign(receipt_payload(receipt, last.count + 1, last.last or None)).to_bytes()
            write_bytes(self.path(last.count + 1), data)
            self._write_head(Head(last.count + 1, sha256(data)), key)
            return self.read(last.count + 1)

    def read(self, sequence: int) -> Stored:
        """A receipt by its number, checked against the chain's own keys; raises DamagedReceipt."""
        return Stored(self.path(sequence), checked(self.path(sequence), self.public_keys(), read_receipt))

    def receipts(self) -> tuple[Stored, ...]:
        """All receipts in their order, each checked by itself (`verify_chain` checks how they hang together)."""
        return tuple(self.read(number) for number in self.numbers())

    def find(self, request_id: str) -> Stored | None:
        """The receipt of a request."""
        self._learn()
        number = self._requests.get(request_id)
        return None if number is None else self.read(number)

    def head(self) -> Head:
        """The signed head; raises DamagedReceipt where it is missing or altered."""
        return checked(self.folder / HEAD, self.public_keys(), read_head)

    def _learn(self) -> None:
        """Note the requests of receipts that came since the last look."""
        for number in self.numbers():
            if number > self._seen:
                self._requests.setdefault(self.read(number).signed.receipt.request.id, number)
                self._seen = number

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _mend(self, key: SigningKey) -> Head:
        """Finish what a killed append began (a receipt that the head doesn't count yet); the head then.

        Refuses to go on from a chain that lost its tail: a new head would make the loss look right.
        """
        for path in self.folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                path.unlink()
        self._learn()
        count = len(self.numbers())
        held = self.head() if (self.folder / HEAD).exists() else Head(0, "")
        if count == held.count + 1:
            last = self.read(count).signed
            if last.previous != (held.last or None):
                raise DamagedReceipt(f"{self.path(count)} doesn't follow the head of the chain: {_RESTORE}")
            held = Head(count, last.sha256)
            self._write_head(held, key)
        elif count != held.count or (count and sha256(self.path(count).read_bytes()) != held.last):
            raise DamagedReceipt(f"{self.folder} holds {count} receipts, its head counts {held.count}: {_RESTORE}")
        return held

    def _write_head(self, head: Head, key: SigningKey) -> None:
        write_bytes(self.folder / HEAD, key.sign(head_payload(head)).to_bytes())
