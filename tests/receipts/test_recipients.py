"""Who has the model, and who was told: nothing is lost, nothing is counted twice."""

import json

import pytest

from amnesiac.errors import DamagedStore, ReceiptError
from amnesiac.receipts import Recipients

T1, T2, T3 = (f"2026-11-0{k}T08:00:00Z" for k in (1, 2, 3))


@pytest.fixture
def register(tmp_path):
    found = Recipients(tmp_path / "receipts")
    assert found.recipients() == ()
    assert found.add("Clinic Süd", "v1", T1, "by courier")
    assert found.add("Clinic Süd", "v2", T3)
    assert found.add("Bureau", "v1", T2)
    return found


def test_what_was_noted_is_read_back_by_name(register):
    bureau, clinic = Recipients(register.path.parent).recipients()
    assert (bureau.name, clinic.name) == ("Bureau", "Clinic Süd")
    assert [(event.about, event.at, event.note) for event in clinic.received] == [
        ("v1", T1, "by courier"),
        ("v2", T3, ""),
    ]
    assert clinic.notified == bureau.notified == ()
    assert register.path.stat().st_mode & 0o777 == 0o600


def test_the_same_is_noted_once(register):
    before = register.path.read_bytes()
    assert not register.add("Bureau", "v1", T3)
    assert register.path.read_bytes() == before
    assert register.notified("Bureau", "r-1", T3)
    assert not register.notified("Bureau", "r-1", T3)
    assert len(register.recipients()[0].notified) == 1


def test_who_has_yet_to_be_told(register):
    assert [one.name for one in register.to_notify("r-1", T2)] == ["Clinic Süd"], (
        "the Bureau got it with the deletion in"
    )
    assert [one.name for one in register.to_notify("r-1", T3)] == ["Bureau", "Clinic Süd"]
    register.notified("Clinic Süd", "r-1", T3, "letter 7")
    assert [one.name for one in register.to_notify("r-1", T3)] == ["Bureau"]
    assert [one.name for one in register.to_notify("r-2", T3)] == ["Bureau", "Clinic Süd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "v1", T1), "recipient '' must be 1 to 256"),
        (("a\nb", "v1", T1), "printable"),
        (("a", "v 1", T1), "version 'v 1' must be"),
        (("a", "v1", "2026-11-01"), "time '2026-11-01' isn't like"),
        (("a", "v1", "2026-1-1T8:00:00Z"), "isn't like"),
        (("a", "v1", T1, " note"), "note"),
    ],
)
def test_malformed_entries_are_refused_and_nothing_is_noted(arguments, message, register):
    before = register.path.read_bytes()
    with pytest.raises(ReceiptError, match=message):
        register.add(*arguments)
    assert register.path.read_bytes() == before


def test_nobody_is_told_who_has_nothing(register):
    with pytest.raises(ReceiptError, match="nobody called 'Clinic' has received a version: add the recipient first"):
        register.notified("Clinic", "r-1", T1)


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"event": "received", "recipient": "x"}', b'{"event": "lent"}'])
def test_a_damaged_line_is_named(line, register):
    lines = register.path.read_bytes().splitlines()
    assert json.loads(lines[1])["version"] == "v2"
    register.path.write_bytes(b"\n".join([lines[0], line, lines[2], b""]))
    with pytest.raises(DamagedStore, match=r"recipients\.jsonl: line 2 can't be read: restore"):
        register.recipients()
    with pytest.raises(DamagedStore, match="line 2"):
        register.add("New", "v1", T1)
