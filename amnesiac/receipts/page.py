"""A receipt for people: as one HTML page that needs nothing else, and as text for a terminal.

Neither proves anything: the envelope does. The page carries it along, so that whoever has the page can verify it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from jinja2 import Environment, PackageLoader, StrictUndefined

from amnesiac.receipts.facts import Purged, Receipt
from amnesiac.receipts.statement import SignedReceipt

WIDTH = 100
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A title and rows of (what, value)."""

    title: str
    rows: Rows


def as_page(signed: SignedReceipt) -> str:
    """The receipt as HTML: no script, no request, light and dark, printable; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("amnesiac", "receipts"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        receipt=signed.receipt,
        signed=signed,
        in_time=_in_time(signed.receipt),
        sections=sections(signed),
        envelope=signed.envelope.decode(),
    )


def as_text(signed: SignedReceipt) -> str:
    """The same for a terminal, at most `WIDTH` characters wide unless a value has no spaces."""
    receipt = signed.receipt
    lines = [f"Deletion receipt {signed.sequence}, request {receipt.request.id}: {_in_time(receipt)}", ""]
    lines += _paragraph("Claimed", receipt.algorithm.claimed) + _paragraph("Not claimed", receipt.algorithm.not_claimed)
    for section in sections(signed):
        lines += ["", section.title, *(f"  {what:<22} {value}" for what, value in section.rows)]
    return "\n".join(lines) + "\n"


def sections(signed: SignedReceipt) -> list[Section]:
    """All facts, in the order in which they are read; empty sections are left out."""
    receipt = signed.receipt
    found = [
        Section("Request", _request(receipt)),
        Section("What was done", _done(receipt)),
        Section("Removed from", [(f"{one.place}: {one.what}", _amount(one)) for one in receipt.purged]),
        Section("Search for residues", _scan(receipt)),
        Section("Measured", [(name, _number(value)) for name, value in receipt.metrics.items()]),
        Section("When", list(receipt.states.items())),
        Section("Ids, as keyed hashes", _ids(receipt)),
        Section("Signature", _signature(signed)),
    ]
    return [section for section in found if section.rows]


def _request(receipt: Receipt) -> Rows:
    request = receipt.request
    return [
        ("request", request.id),
        ("received", request.received),
        ("deadline", request.deadline),
        ("batch", receipt.batch),
        ("ids held", f"{len(request.ids):,}"),
        ("ids not held", f"{len(request.not_held):,}"),
    ]


def _done(receipt: Receipt) -> Rows:
    return [
        ("algorithm", f"{receipt.algorithm.name} {receipt.algorithm.version}"),
        ("subjects", f"{receipt.subjects:,}"),
        ("rows removed", f"{receipt.rows_removed:,}"),
        ("rows left", f"{receipt.rows_left:,}"),
        ("keys destroyed", f"{receipt.keys_destroyed:,} (epoch {receipt.key_epoch})"),
        ("model before", receipt.model.before),
        ("model after", receipt.model.after),
        ("evaluation", receipt.verdict),
    ]


def _scan(receipt: Receipt) -> Rows:
    scan = receipt.scan
    return [
        ("hits", f"{scan.hits:,}"),
        ("couldn't be read", f"{scan.gaps:,}"),
        ("searched for", ", ".join(f"{n:,} {kind}" for kind, n in scan.kinds.items()) or f"{scan.things:,} things"),
        ("searched", f"{scan.files:,} files, {scan.bytes:,} bytes"),
        *(("place", place) for place in scan.places),
    ]


def _ids(receipt: Receipt) -> Rows:
    held = [("held", name) for name in receipt.request.ids]
    return held + [("not held", name) for name in receipt.request.not_held]


def _signature(signed: SignedReceipt) -> Rows:
    return [
        ("receipt number", str(signed.sequence)),
        ("sha256 of the file", signed.sha256),
        ("sha256 before", signed.previous or "none: the first"),
        ("key (sha256)", signed.keyid),
    ]


def _in_time(receipt: Receipt) -> str:
    """Whether the new model was published by the deadline; times are texts that sort."""
    published = receipt.states.get("PUBLISHED") or max(receipt.states.values(), default="")
    if not published:
        return "no time of publication is stated"
    return "published in time" if published <= receipt.request.deadline else "published after the deadline"


def _amount(one: Purged) -> str:
    return f"{one.count:,}" + ("" if one.bytes is None else f" ({one.bytes:,} bytes)")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.6g}"


def _paragraph(title: str, text: str) -> list[str]:
    return wrap(f"{title}: {text}", WIDTH, subsequent_indent="  ")
