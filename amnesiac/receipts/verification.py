"""Is the chain of receipts whole? Says everything that is wrong with it, file by file.

What this can't see: a folder that was put back as a whole to an older state, head included (every signature in it is
good). Keep something newer elsewhere, any later receipt or head, and hand it in as a witness. Nor can it see who else
holds the private key.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amnesiac.errors import DamagedReceipt, ReceiptError
from amnesiac.receipts.chain import HEAD, Chain, checked
from amnesiac.receipts.public_keys import PublicKey
from amnesiac.receipts.statement import Head, SignedReceipt, read_head, read_receipt, sha256


@dataclass(frozen=True)
class ChainVerification:
    """`receipts` files were looked at; `problems` says what is wrong, nothing if it is empty."""

    folder: str
    receipts: int
    problems: tuple[str, ...]


def verify_chain(
    folder: Path, keys: Sequence[PublicKey] | None = None, witnesses: Sequence[Path] = ()
) -> ChainVerification:
    """Check all signatures, numbers, links, requests and the head; reads nothing but the folder.

    keys       trusted public keys; None takes those in the folder, which whoever can write it can replace
    witnesses  receipts or heads of this chain that were kept elsewhere: they must be in it, unchanged
    """
    chain = Chain(folder)
    look = _Look(chain, tuple(chain.public_keys() if keys is None else keys))
    problems = [*look.files(), *look.requests(), *look.head()]
    problems += [problem for path in witnesses for problem in look.witness(path)]
    return ChainVerification(str(folder), len(chain.numbers()), tuple(problems))


class _Look:
    def __init__(self, chain: Chain, keys: tuple[PublicKey, ...]) -> None:
        self.chain, self.keys = chain, keys
        self.hashes = {number: sha256(chain.path(number).read_bytes()) for number in chain.numbers()}
        self.good: dict[int, SignedReceipt] = {}
        """By the number of the file."""

    def files(self) -> Iterator[str]:
        """Every number from 1 on has a file, holding the receipt of that number, which follows the one before."""
        for number in range(1, max([0, *self.hashes]) + 1):
            path = self.chain.path(number)
            if number not in self.hashes:
                yield f"{path.name} is missing: receipt {number} was removed"
                continue
            try:
                self.good[number] = checked(path, self.keys, read_receipt)
            except DamagedReceipt as error:
                yield str(error)
            else:
                yield from self._place(number, self.good[number])

    def _place(self, number: int, signed: SignedReceipt) -> Iterator[str]:
        name = self.chain.path(number).name
        if signed.sequence != number:
            yield f"{name} holds receipt {signed.sequence}: files were renamed, reordered or copied"
        elif signed.previous != self.hashes.get(number - 1) and (number == 1 or number - 1 in self.hashes):
            before = self.chain.path(number - 1).name if number > 1 else "nothing"
            yield f"{name} doesn't follow {before}: it holds another hash of what came before, so that was replaced"

    def requests(self) -> Iterator[str]:
        """A request has one receipt."""
        first: dict[str, int] = {}
        for number, signed in self.good.items():
            earlier = first.setdefault(signed.receipt.request.id, number)
            if earlier != number:
                names = f"{self.chain.path(earlier).name} and {self.chain.path(number).name}"
                yield f"{names} are both of request {signed.receipt.request.id}: a request has one receipt"

    def head(self) -> Iterator[str]:
        """The head counts all receipts; one more is what a killed append leaves, and the next append mends."""
        path = self.chain.folder / HEAD
        if not self.hashes and not path.exists():
            return
        try:
            head = checked(path, self.keys, read_head)
        except DamagedReceipt as error:
            if not (self._interrupted_first() and not path.exists()):
                yield f"{error}; whether the last receipts were removed can't be told"
            return
        yield from self._against(head)

    def _interrupted_first(self) -> bool:
        return list(self.hashes) == [1]

    def _against(self, head: Head) -> Iterator[str]:
        count = max([0, *self.hashes])
        if count < head.count:
            yield f"receipts {count + 1} to {head.count} are missing: {HEAD} counts {head.count}, the tail was cut off"
        elif count > head.count + 1:
            yield f"{HEAD} counts {head.count} of {count} receipts: an older head was put in its place"
        elif self.hashes.get(head.count) != head.last:
            yield f"{self.chain.path(head.count).name} isn't the receipt that {HEAD} names: one of them was replaced"

    def witness(self, path: Path) -> Iterator[str]:
        """A receipt or head from elsewhere must be part of this chain."""
        number, digest = self._known(path)
        proof = f"which {path} proves to have existed"
        if number not in self.hashes:
            yield f"receipt {number}, {proof}, is missing: the chain was put back or cut off"
        elif self.hashes[number] != digest:
            yield f"{self.chain.path(number).name} isn't receipt {number}, {proof}: it was replaced"

    def _known(self, path: Path) -> tuple[int, str]:
        """Number and hash; raises DamagedReceipt for what is neither of these keys, ReceiptError without a file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ReceiptError(f"{path} can't be read ({error.strerror}): name a receipt or head") from error
        try:
            signed = read_receipt(data, self.keys)
        except DamagedReceipt:
            head = checked(path, self.keys, read_head)
            return head.count, head.last
        return signed.sequence, signed.sha256
