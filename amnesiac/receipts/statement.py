"""in-toto statements (Statement v1): a receipt about the published model, and the head of the chain of receipts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesiac.errors import DamagedReceipt, ReceiptError
from amnesiac.receipts.envelope import IN_TOTO, Envelope, read_envelope
from amnesiac.receipts.facts import Receipt, from_json, to_json
from amnesiac.receipts.public_keys import PublicKey, read_public_key

STATEMENT = "https://in-toto.io/Statement/v1"
RECEIPT = "urn:amnesiac:deletion-receipt:v1"
HEAD = "urn:amnesiac:deletion-receipt-chain-head:v1"


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt whose signature is good.

    sequence  1, 2, 3, ... in its chain
    previous  SHA-256 of the envelope before, None for the first
    keyid     of the key that signed it
    sha256    of this envelope's bytes
    """

    receipt: Receipt
    sequence: int
    previous: str | None
    keyid: str
    sha256: str
    envelope: bytes


@dataclass(frozen=True)
class Head:
    """How many receipts there are, and the SHA-256 of the last one's envelope."""

    count: int
    last: str


def receipt_payload(receipt: Receipt, sequence: int, previous: str | None) -> bytes:
    """What is signed for a receipt; raises ReceiptError for malformed facts."""
    predicate = {"sequence": sequence, "previous": previous, "deletion": to_json(receipt)}
    return _statement("model", receipt.model.after, RECEIPT, predicate)


def head_payload(head: Head) -> bytes:
    """What is signed for the head."""
    return _statement("last receipt", head.last, HEAD, {"count": head.count})


def read_receipt(data: bytes, keys: Sequence[PublicKey]) -> SignedReceipt:
    """Check an envelope's bytes and read the receipt in it; raises DamagedReceipt saying what is wrong."""
    envelope, statement, signer = _checked(data, keys, RECEIPT)
    try:
        predicate = statement["predicate"]
        receipt = from_json(predicate["deletion"])
        sequence, previous = int(predicate["sequence"]), predicate["previous"]
        about = statement["subject"][0]["digest"]["sha256"]
    except (KeyError, IndexError, TypeError, ValueError, ReceiptError) as error:
        raise DamagedReceipt(f"is signed, but isn't a receipt that this version reads ({error})") from error
    if about != receipt.model.after:
        raise DamagedReceipt("is signed, but its subject is another model than its facts name")
    return SignedReceipt(receipt, sequence, previous, signer.keyid, sha256(data), data)


def read_head(data: bytes, keys: Sequence[PublicKey]) -> Head:
    """Check and read the head of a chain; raises DamagedReceipt."""
    _, statement, _ = _checked(data, keys, HEAD)
    return Head(int(statement["predicate"]["count"]), str(statement["subject"][0]["digest"]["sha256"]))


def verify_file(path: Path, public_key: Path | PublicKey) -> SignedReceipt:
    """Check a receipt with nothing but its file and the public key.

    Raises DamagedReceipt naming the file and what is wrong; ReceiptError where file or key can't be read.
    """
    return read_receipt_file(path, [public_key if isinstance(public_key, PublicKey) else read_public_key(public_key)])


def read_receipt_file(path: Path, keys: Sequence[PublicKey]) -> SignedReceipt:
    """The same with several keys, of which one must fit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReceiptError(f"{path} can't be read ({error.strerror}): name the file of a receipt") from error
    try:
        return read_receipt(data, keys)
    except DamagedReceipt as error:
        raise DamagedReceipt(f"{path} {error}") from error


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _statement(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> bytes:
    content = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": predicate,
    }
    return json.dumps(content, sort_keys=False, separators=(",", ":"), allow_nan=False).encode()


def _checked(data: bytes, keys: Sequence[PublicKey], kind: str) -> tuple[Envelope, dict[str, Any], PublicKey]:
    """The statement of a good signature by one of the keys, of the kind that is asked for."""
    envelope = read_envelope(data)
    signer = envelope.signer(tuple(keys))
    if signer is None:
        raise DamagedReceipt(_unsigned(envelope, keys))
    if [one.keyid for one in envelope.signatures] != [signer.keyid] or envelope.to_bytes() != data:
        raise DamagedReceipt(
            "has a good signature, but isn't byte for byte what was written (reformatted, or its key id altered): get "
            "the original file, since the next receipt holds the hash of its bytes"
        )
    return envelope, _read_statement(envelope, kind), signer


def _unsigned(envelope: Envelope, keys: Sequence[PublicKey]) -> str:
    named = [one.keyid for one in envelope.signatures]
    known = {key.keyid for key in keys}
    if not known & set(named):
        given = ", ".join(sorted(keyid[:16] for keyid in known)) or "none"
        return (
            f"is signed by another key ({', '.join(keyid[:16] for keyid in named) or 'no signature'}; given: {given}): "
            "get that key's public half from whoever made the receipt, or don't trust it"
        )
    return "was altered: the signature isn't that of this payload. Don't trust it, get the original file"


def _read_statement(envelope: Envelope, kind: str) -> dict[str, Any]:
    if envelope.payload_type != IN_TOTO:
        raise DamagedReceipt(f"is signed, but holds {envelope.payload_type!r} and no in-toto statement")
    try:
        statement = json.loads(envelope.payload)
    except ValueError:
        statement = None
    if not isinstance(statement, dict):
        raise DamagedReceipt("is signed, but isn't a statement (a JSON object): another file")
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != kind:
        raise DamagedReceipt(f"is signed, but is {statement.get('predicateType')!r} and not {kind!r}: another file")
    return statement
