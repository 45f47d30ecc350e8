"""Who may see the status page: the token, sessions, names of this host, and the headers that every answer carries.

Without a token the page is for this machine only, and answers only to this machine's own names: a foreign page whose
name was pointed at 127.0.0.1 (DNS rebinding) sends its own name as Host. With a token any name will do: a rebound name
has no cookie of ours.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path

from amnesiac.errors import InputError, SettingsError

TOKEN_VARIABLE = "AMNESIAC_UI_TOKEN"  # noqa: S105 (its name, not its value)
LEAST_CHARACTERS = 20
COOKIE = "amnesiac_session"
SESSION_SECONDS = 12 * 3600
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # not no-referrer: then browsers send our own forms with the origin "null"
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
DOCUMENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""For a self-contained page (report, receipt): its styles are inline, and it has no script."""


class Gate:
    """The token's hash and a key of this process, with which sessions are signed: a restart ends them all."""

    def __init__(self, token: str | None) -> None:
        """`None`: anybody on this machine may look. Raises SettingsError for a token that can be guessed."""
        if token is not None and len(token) < LEAST_CHARACTERS:
            raise SettingsError(
                f"the status page's token has {len(token)} characters, and at least {LEAST_CHARACTERS} are needed: "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
        self._hash = None if token is None else _hashed(token)
        self._key = secrets.token_bytes(32)

    @property
    def closed(self) -> bool:
        """Whether a token is needed."""
        return self._hash is not None

    def fits(self, token: str) -> bool:
        """Whether this is the token, in a time that doesn't tell how much of it is right."""
        return self._hash is None or hmac.compare_digest(self._hash, _hashed(token))

    def session(self, now: float | None = None) -> str:
        """A cookie's value for whoever has shown the token: when it ends, signed."""
        end = str(int((time.time() if now is None else now) + SESSION_SECONDS))
        return f"{end}.{self._signature(end)}"

    def admits(self, headers: Mapping[str, str], now: float | None = None) -> bool:
        """Whether a request with these headers (lower case) may see the page."""
        if self._hash is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.fits(given.strip())
        return self._is_session(_cookie(headers.get("cookie", "")), time.time() if now is None else now)

    def knows(self, host: str, bound: str) -> bool:
        """Whether a Host header names this machine, as `bound` does; with a token any name will do."""
        return self.closed or _name_of(host) in _LOOPBACK_NAMES | {bound}

    def _is_session(self, value: str, now: float) -> bool:
        end, _, signature = value.partition(".")
        signed = hmac.compare_digest(self._signature(end).encode(), signature.encode())
        return signed and end.isdecimal() and now < int(end)

    def _signature(self, end: str) -> str:
        return hmac.new(self._key, end.encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: Path | None) -> str | None:
    """The token: of `file`, else of AMNESIAC_UI_TOKEN; None if neither is given.

    Raises InputError for a file that is missing or empty, or that others may read.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        mode, token = file.stat().st_mode, file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token file {file} can't be read: {error}") from error
    if mode & 0o077:
        raise InputError(f"the token file {file} may be read by others (mode {mode & 0o777:o}): run `chmod 600 {file}`")
    if not token:
        raise InputError(f"the token file {file} is empty: write the token into it")
    return token


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _name_of(host: str) -> str:
    """Without the port: "[::1]:80" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
