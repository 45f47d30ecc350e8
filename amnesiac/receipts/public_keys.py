"""Public keys that verify receipts: Ed25519, as PEM files named by their id."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from amnesiac.errors import ReceiptError


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key.

    keyid   SHA-256 of the key in DER (SubjectPublicKeyInfo): `openssl pkey -pubin -in FILE -outform DER | sha256sum`
    """

    key: Ed25519PublicKey
    keyid: str

    def to_pem(self) -> bytes:
        """As a PEM file holds it."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_key(key: Ed25519PublicKey) -> PublicKey:
    """A key with its id."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(key, hashlib.sha256(der).hexdigest())


def read_public_key(path: Path) -> PublicKey:
    """Read a PEM file; raises ReceiptError for anything but an Ed25519 public key."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ReceiptError(f"{path} can't be read ({error.strerror}): name the PEM file of the public key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReceiptError(f"{path} holds no public key in PEM: ask whoever made the receipt for it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ReceiptError(f"{path} holds another kind of key: receipts are signed with Ed25519")
    return public_key(key)


def read_public_keys(folder: Path) -> tuple[PublicKey, ...]:
    """The keys of a folder's PEM files, in the order of their names; none where the folder doesn't exist."""
    return tuple(read_public_key(path) for path in sorted(folder.glob("*.pem")))
