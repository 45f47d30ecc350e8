"""Digests of journalled requests: they hold no id, and stay the same when a request's values are replaced by HMACs."""

import hashlib
import hmac
import json
from collections.abc import Iterable

from amnesiac.requests.pointer import Pointer
from amnesiac.requests.request import DeletionRequest, Kind

_NOUNS: dict[Kind, str] = {"samples": "sample", "random": "sample", "subject": "subject", "class": "class"}


def value_hmac(salt: str, kind: Kind, value: str) -> str:
    """HMAC-SHA-256 of what a request names with the journal's salt, 64 hex digits.

    The same sample has the same HMAC whether it was named by id or drawn. Without the salt nobody can find the value
    by trying them all.
    """
    return hmac.digest(salt.encode(), f"{_NOUNS[kind]}:{value}".encode(), "sha256").hex()


def request_hmacs(salt: str, request: DeletionRequest) -> tuple[str, ...]:
    """The HMACs of a request's values, sorted; of a redacted request these are its values."""
    if request.redacted:
        return request.values
    return tuple(sorted(value_hmac(salt, request.kind, value) for value in request.values))


def point(salt: str, requests: Iterable[DeletionRequest]) -> Pointer:
    """The pointer to these requests: SHA-256 over a line a request of its id, kind, HMACs and time of receipt."""
    digest, count = hashlib.sha256(), 0
    for request in requests:
        line = [request.request_id, request.kind, request_hmacs(salt, request), request.received]
        digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        count += 1
    return Pointer(count, digest.hexdigest())
