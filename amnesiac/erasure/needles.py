"""What a scan looks for: ids in the forms in which software writes them down, rows of plaintext, keys.

A needle carries an opaque number (the position of what is looked for), never a name: a report of hits can be shown
to people who must not know who was erased.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from amnesiac.erasure.base64_text import cores

MIN_BYTES = 6
"""Shorter needles turn up by chance: 4 bytes in every fourth GB of random data, 6 bytes in one of 280,000 GB."""


@dataclass(frozen=True)
class Needle:
    """Bytes to look for.

    number  which of the things looked for this is a form of
    form    how it is written: utf-8, utf-16, utf-32 (NumPy's texts), hex, base64, url, bytes
    data    what is looked for: of base64 the characters that the text alone decides
    within  longer texts that hold the needle and may stand where they are, with the needle's position in them: the
            surviving `user-12` holds the erased `user-1`
    text    of base64: what must be there once it is decoded (`within` is decoded too), at `alignment` of three bytes
    """

    number: int
    form: str
    data: bytes
    within: tuple[tuple[bytes, int], ...] = ()
    text: bytes = b""
    alignment: int = 0


def id_needles(ids: Sequence[str], surviving: Collection[str] = ()) -> list[Needle]:
    """Needles for ids, in every form; `number` is the position in `ids`.

    A hit that is part of one of the `surviving` ids isn't one. Forms shorter than `MIN_BYTES` are left out; what is
    then not looked for in plain is counted by `too_short`.
    """
    longer = _longer(ids, surviving)
    return [needle for number, name in enumerate(ids) for needle in _forms_as_needles(number, name, longer[name])]


def byte_needles(values: Iterable[bytes], first: int = 0, *, encoded: bool = False, piece: int = 0) -> list[Needle]:
    """Needles for plaintext rows or keys; numbers count from `first`.

    `encoded` looks for their hex and base64 forms too (keys in logs). `piece` cuts each value into pieces of so many
    bytes that are looked for one by one, so that half an overwritten row is found too. What has few different bytes (a
    black image, the border of any) stands in other people's rows too and is left out: fewer than 2, in a piece than 8.
    """
    found, varied = [], 8 if piece else 2
    for number, value in enumerate(values, first):
        parts = [value[k : k + piece] for k in range(0, len(value), piece)] if piece else [value]
        found += [Needle(number, "bytes", part) for part in parts if is_searchable(part) and len(set(part)) >= varied]
        if encoded:
            found += [Needle(number, "hex", data) for data in sorted(_hex(value))]
            found += _in_base64(number, value, ())
    return found


def is_searchable(data: bytes) -> bool:
    """Whether a hit would mean anything: long enough, and not one byte repeated."""
    return len(data) >= MIN_BYTES and len(set(data)) > 1


def too_short(ids: Iterable[str]) -> int:
    """How many ids are too short to be looked for as they stand."""
    return sum(not is_searchable(name.encode()) for name in ids)


def _forms_as_needles(number: int, name: str, longer: Collection[str]) -> Iterator[Needle]:
    around = [_forms(text) for text in longer]
    for form, texts in _forms(name).items():
        for data in sorted(texts):
            if is_searchable(data):
                yield Needle(number, form, data, tuple(_positions(data, [forms[form] for forms in around])))
    yield from _in_base64(number, name.encode(), tuple(_positions(name.encode(), [f["utf-8"] for f in around])))


def _in_base64(number: int, value: bytes, within: tuple[tuple[bytes, int], ...]) -> list[Needle]:
    found = [(alignment, core) for alignment, core in cores(value) if is_searchable(core)]
    return [Needle(number, "base64", core, within, value, alignment) for alignment, core in found]


def _positions(data: bytes, longer: Iterable[Collection[bytes]]) -> Iterator[tuple[bytes, int]]:
    for text in (text for texts in longer for text in sorted(texts)):
        at = text.find(data)
        while at >= 0:
            yield text, at
            at = text.find(data, at + 1)


def _forms(name: str) -> Mapping[str, set[bytes]]:
    plain = name.encode()
    return {
        "utf-8": {plain},
        # without the zeros at their end they are found in big-endian text too
        "utf-16": {name.encode("utf-16-le")[:-1]},
        "utf-32": {name.encode("utf-32-le")[:-3]},
        "hex": _hex(plain),
        "url": {quote(name, safe="").encode()} - {plain},
    }


def _hex(data: bytes) -> set[bytes]:
    return {data.hex().encode(), data.hex().upper().encode()}


def _longer(ids: Iterable[str], surviving: Iterable[str]) -> dict[str, list[str]]:
    """For each id the surviving ids that hold it as a part."""
    found: dict[str, list[str]] = {name: [] for name in ids}
    lengths = sorted({len(name) for name in found})
    for text in surviving:
        if text in found:
            raise ValueError("an id is both erased and surviving")
        parts = {text[k : k + n] for n in lengths if n < len(text) for k in range(len(text) - n + 1)}
        for name in parts & found.keys():
            found[name].append(text)
    return found
