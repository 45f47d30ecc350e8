"""DSSE envelopes (github.com/secure-systems-lab/dsse, protocol 1.0): a payload, its type, and signatures over both.

{"payload": BASE64, "payloadType": TYPE, "signatures": [{"keyid": HEX, "sig": BASE64}]}
signed bytes: "DSSEv1" SP len(TYPE) SP TYPE SP len(payload) SP payload
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature

from amnesiac.errors import DamagedReceipt
from amnesiac.receipts.public_keys import PublicKey

IN_TOTO = "application/vnd.in-toto+json"
MAX_BYTES = 16 << 20


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what a signature is over. Lengths count bytes."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


@dataclass(frozen=True)
class Signature:
    """A signature; `keyid` is a hint that nothing trusts."""

    sig: bytes
    keyid: str = ""


@dataclass(frozen=True)
class Envelope:
    """A payload with its signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The one way in which this project writes an envelope: a change of any bit is no such text any more."""
        fields = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": one.keyid, "sig": base64.b64encode(one.sig).decode()} for one in self.signatures],
        }
        return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()

    def signer(self, keys: "tuple[PublicKey, ...]") -> PublicKey | None:
        """The first of the keys that one of the signatures was made with, whatever `keyid` says."""
        signed = pae(self.payload_type, self.payload)
        return next((key for key in keys for one in self.signatures if _is_by(key, one.sig, signed)), None)


def read_envelope(data: bytes) -> Envelope:
    """Read an envelope; raises DamagedReceipt saying what it lacks. Standard and URL-safe base64 are both allowed."""
    if len(data) > MAX_BYTES:
        raise DamagedReceipt(f"an envelope has at most {MAX_BYTES} bytes, this has {len(data)}: it is none")
    try:
        fields = json.loads(data)
        signatures = tuple(Signature(_decoded(one["sig"]), str(one.get("keyid", ""))) for one in fields["signatures"])
        return Envelope(_decoded(fields.get("payload", "")), _text(fields["payloadType"]), signatures)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DamagedReceipt(f"isn't a DSSE envelope ({_why(error)}): it was altered, or is another file") from error


def _decoded(text: Any) -> bytes:
    standard = _text(text).replace("-", "+").replace("_", "/")
    return base64.b64decode(standard, validate=True)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    return value


def _is_by(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error}"
    return "bad base64" if isinstance(error, binascii.Error) else str(error)
