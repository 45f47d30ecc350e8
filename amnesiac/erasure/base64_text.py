"""Text inside of base64: where it may begin in a group of four characters, and what stands around it.

Base64 writes three bytes as four characters, so the same text looks different at each of three alignments, and its
first and last character also depend on its neighbours. What is searched for is the part that doesn't; what is found is
then decoded, so that `writer-1` isn't mistaken for `writer-2`.
"""

import base64
import binascii
import re

_GROUP = re.compile(rb"[A-Za-z0-9+/]{4}")
_SOME = re.compile(rb"[A-Za-z0-9+/]{0,4}")
_STANDARD = bytes.maketrans(b"-_", b"+/")


def cores(data: bytes) -> list[tuple[int, bytes]]:
    """(alignment, characters that `data` alone decides), in the standard and the URL alphabet."""
    found = set()
    for alignment in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(alignment) + data)
            found.add((alignment, text[characters_before(alignment) : 8 * (alignment + len(data)) // 6]))
    return sorted(found)


def characters_before(alignment: int) -> int:
    """Characters of the group that depend on what comes before the text."""
    return -(-8 * alignment // 6)


def decoded_around(buffer: bytes, at: int, alignment: int, before: int, after: int) -> tuple[bytes, int]:
    """What a core found at `at` is part of: the bytes, up to `before` of them before it, and its position in them.

    `after` counts from the text's first byte.
    """
    group = at - characters_before(alignment)
    if group < 0:
        return b"", 0
    left, first = b"", group
    while len(left) < before and first >= 4 and (text := _groups(buffer, first - 4)):
        left, first = base64.b64decode(text) + left, first - 4
    right, next_group = b"", group
    while len(right) < alignment + after and (text := _groups(buffer, next_group)):
        right, next_group = right + base64.b64decode(text), next_group + 4
    return left + right + _last(buffer, next_group), len(left) + alignment


def _groups(buffer: bytes, at: int) -> bytes:
    """The four characters at a position, empty if they aren't base64."""
    text = buffer[at : at + 4].translate(_STANDARD)
    return text if _GROUP.fullmatch(text) else b""


def _last(buffer: bytes, at: int) -> bytes:
    """The bytes of a last group that has fewer than four characters."""
    match = _SOME.match(buffer[at : at + 4].translate(_STANDARD))
    text = match[0] if match else b""
    if len(text) in (0, 1):
        return b""
    return binascii.a2b_base64(text.ljust(4, b"A"))[: 6 * len(text) // 8]
