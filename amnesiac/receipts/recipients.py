"""Who received which version of the model, and when they were told of a deletion (GDPR Art. 19).

recipients.jsonl   append-only: {"event": "received", "recipient", "version", "at", "note"?}
                                {"event": "notified", "recipient", "request", "at", "note"?}
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from amnesiac.durable_lines import DurableLines
from amnesiac.errors import DamagedStore, ReceiptError

FILE_NAME = "recipients.jsonl"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Event:
    """A line of the register: a version was received, or a deletion was told of.

    about  version received, or request told of
    at     ISO-8601 UTC to the second
    note   how, or to whom exactly; may be empty
    """

    kind: Literal["received", "notified"]
    recipient: str
    about: str
    at: str
    note: str = ""

    def __post_init__(self) -> None:
        _check_text("recipient", self.recipient, 1)
        _check_text("note", self.note, 0)
        _check_about("version" if self.kind == "received" else "request", self.about)
        _check_moment(self.at)


@dataclass(frozen=True)
class Recipient:
    """What the register holds of one recipient, oldest first."""

    name: str
    received: tuple[Event, ...]
    notified: tuple[Event, ...]


class Recipients:
    """The register in a folder; a missing file is an empty one."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is opened or created yet."""
        self._lines = DurableLines(folder / FILE_NAME)
        self.path = self._lines.path

    def add(self, name: str, version: str, at: str, note: str = "") -> bool:
        """Note that a recipient received a version; False where that is known already. Raises ReceiptError."""
        return self._note(Event("received", name, version, at, note))

    def notified(self, name: str, request_id: str, at: str, note: str = "") -> bool:
        """Note that a recipient was told of a deletion; False where that is known already.

        Raises ReceiptError for somebody who isn't known to have received anything.
        """
        event = Event("notified", name, request_id, at, note)
        if name not in {recipient.name for recipient in self.recipients()}:
            raise ReceiptError(f"nobody called {name!r} has received a version: add the recipient first")
        return self._note(event)

    def recipients(self) -> tuple[Recipient, ...]:
        """All recipients by name; raises DamagedStore naming the line that can't be read."""
        events = self._events(self._lines.read())
        return tuple(
            Recipient(name, _of(events, name, "received"), _of(events, name, "notified"))
            for name in sorted({event.recipient for event in events})
        )

    def to_notify(self, request_id: str, published: str) -> tuple[Recipient, ...]:
        """Who received a version before the deletion was published (ISO-8601 UTC) and hasn't been told of it."""
        _check_moment(published)
        return tuple(
            one
            for one in self.recipients()
            if any(event.at < published for event in one.received)
            and not any(event.about == request_id for event in one.notified)
        )

    def _note(self, event: Event) -> bool:
        def new(lines: Sequence[bytes]) -> list[bytes]:
            same = any(
                (e.kind, e.recipient, e.about) == (event.kind, event.recipient, event.about)
                for e in self._events(lines)
            )
            return [] if same else [_line(event)]

        return self._lines.extend(new) == 1

    def _events(self, lines: Sequence[bytes]) -> list[Event]:
        return [self._event(number, line) for number, line in enumerate(lines, start=1)]

    def _event(self, number: int, line: bytes) -> Event:
        try:
            fields: dict[str, Any] = json.loads(line)
            kind = fields["event"]
            about = fields["version"] if kind == "received" else fields["request"]
            return Event(kind, fields["recipient"], about, fields["at"], fields.get("note", ""))
        except (ValueError, KeyError, TypeError, ReceiptError) as error:
            raise DamagedStore(f"{self.path}: line {number} can't be read: restore the file from a backup") from error


def _line(event: Event) -> bytes:
    about = {"version" if event.kind == "received" else "request": event.about}
    note = {"note": event.note} if event.note else {}
    fields = {"event": event.kind, "recipient": event.recipient, **about, "at": event.at, **note}
    return json.dumps(fields, ensure_ascii=False).encode()


def _of(events: Sequence[Event], name: str, kind: str) -> tuple[Event, ...]:
    return tuple(event for event in events if (event.recipient, event.kind) == (name, kind))


def _check_text(what: str, value: object, least: int) -> None:
    right = isinstance(value, str) and least <= len(value) <= 256 and value.isprintable() and value == value.strip()
    if not right:
        raise ReceiptError(f"{what} {value!r:.80} must be {least} to 256 printable characters, no space around")


def _check_about(what: str, value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ReceiptError(f"{what} {value!r:.80} must be 1 to 64 of A-Z a-z 0-9 _ . : - : mend it")


def _check_moment(value: object) -> None:
    try:
        right = datetime.strptime(str(value), _MOMENT).strftime(_MOMENT) == value  # noqa: DTZ007 (the Z is literal)
    except ValueError:
        right = False
    if not right:
        raise ReceiptError(f"time {value!r:.80} isn't like 2026-11-23T09:54:00Z: give UTC to the second")
