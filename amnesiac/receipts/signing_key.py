"""The private key that signs receipts: made once, 0600 in a folder 0700, and replaced without losing old receipts.

FOLDER/key.pem              the private key (PKCS 8, not encrypted: whoever may read it may sign)
PUBLIC/KEYID.pem            the public halves of this key and of all before it
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from amnesiac.durable import sync_folder, write_bytes
from amnesiac.errors import SigningKeyError
from amnesiac.receipts.envelope import IN_TOTO, Envelope, Signature, pae
from amnesiac.receipts.public_keys import PublicKey, public_key

FILE_NAME = "key.pem"
_REMEDY = "restore it from a backup, or make a new one (amnesiac.receipts.rotate_signing_key)"


@dataclass(frozen=True, repr=False)
class SigningKey:
    """An opened private key; its text form shows the public half only."""

    private: Ed25519PrivateKey
    public: PublicKey

    def __repr__(self) -> str:
        return f"SigningKey(keyid={self.public.keyid})"

    def sign(self, payload: bytes, payload_type: str = IN_TOTO) -> Envelope:
        """An envelope around the payload; the same payload and key give the same bytes (Ed25519)."""
        signature = Signature(self.private.sign(pae(payload_type, payload)), self.public.keyid)
        return Envelope(payload, payload_type, (signature,))


def ensure_signing_key(folder: Path, public: Path) -> SigningKey:
    """Open the key, or make the first one where neither a private nor any public key exists.

    Raises SigningKeyError where the private key is missing although there were receipts, is open to others, or altered.
    """
    with _locked(folder):
        if not os.path.lexists(folder / FILE_NAME):
            _undo_unfinished(folder, public)
            if not list(public.glob("*.pem")):
                _make(folder, public)
    return open_signing_key(folder, public)


def open_signing_key(folder: Path, public: Path) -> SigningKey:
    """Open the key; raises SigningKeyError saying what is wrong with it, and the remedy."""
    path = folder / FILE_NAME
    key = _signing_key(_read_private(path), path)
    exported = public / f"{key.public.keyid}.pem"
    if not exported.is_file() or exported.read_bytes() != key.public.to_pem():
        raise SigningKeyError(
            f"{path}: its public half isn't in {exported}, so one of the two was replaced: restore both from a backup. "
            "Receipts signed with a key that nobody was given prove nothing"
        )
    return key


def rotate_signing_key(folder: Path, public: Path) -> SigningKey:
    """Replace the private key by a new one. The old public key stays: it still verifies what was signed with it.

    Killed at any point, either the old or the new key is in use. Also makes a key where the old one is lost.
    """
    with _locked(folder):
        _make(folder, public)
    return open_signing_key(folder, public)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process makes keys at a time; the lock goes when its process dies."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, public: Path) -> None:
    """The public half is exported first: a private key without it would be refused as replaced."""
    key = Ed25519PrivateKey.generate()
    half = public_key(key.public_key())
    for left in _unfinished(folder):
        left.unlink()
    aside = folder / f".{FILE_NAME}.{half.keyid}.partial"
    try:
        _write_private(aside, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_bytes(public / f"{half.keyid}.pem", half.to_pem())
        aside.replace(folder / FILE_NAME)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(folder)


def _undo_unfinished(folder: Path, public: Path) -> None:
    """A first key whose maker was killed after its public half was exported has signed nothing: both halves go."""
    for left in _unfinished(folder):
        (public / f"{left.name.split('.')[3]}.pem").unlink(missing_ok=True)
        left.unlink()


def _unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(f".{FILE_NAME}.*.partial"))


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SigningKeyError(f"{path}: the key that signs receipts is missing: {_REMEDY}") from error
    except OSError as error:
        raise SigningKeyError(f"{path} can't be opened ({error.strerror}): it must be a plain file, no link") from error
    with os.fdopen(descriptor, "rb") as file:
        _refuse_open_to_others(path, os.fstat(file.fileno()), 0o600)
        _refuse_open_to_others(path.parent, path.parent.stat(), 0o700)
        return file.read()


def _refuse_open_to_others(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise SigningKeyError(f"{path} belongs to user {status.st_uid}: run as its owner, or `chown` it to yourself")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SigningKeyError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may have signed with it: run "
            f"`chmod {mode:o} {path}`, and make a new key if others were on this machine"
        )


def _signing_key(data: bytes, path: Path) -> SigningKey:
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path} holds no private key in PEM, so it was altered: {_REMEDY}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path} holds another kind of key than Ed25519, so it was altered: {_REMEDY}")
    return SigningKey(key, public_key(key.public_key()))
