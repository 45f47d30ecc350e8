"""Who may see the status page, without a server."""

from pathlib import Path

import pytest

from amnesiac.errors import InputError, SettingsError
from flows.web.gate import COOKIE, SESSION_SECONDS, Gate, is_loopback, read_token

TOKEN = "0123456789abcdefghij"  # noqa: S105 (of a test)
NOW = 1_800_000_000.0


def test_without_a_token_everybody_on_this_machine_may_look():
    gate = Gate(None)
    assert not gate.closed and gate.admits({}) and gate.fits("anything")
    for host in ("127.0.0.1:4280", "localhost", "LOCALHOST:1", "[::1]:4280", "status.local:4280"):
        assert gate.knows(host, "status.local"), host
    for host in ("evil.example", "127.0.0.1.evil.example:4280", "localhost.evil.example", ""):
        assert not gate.knows(host, "127.0.0.1"), host


def test_a_token_is_shown_as_bearer_or_turned_into_a_session():
    gate = Gate(TOKEN)
    assert gate.closed and gate.knows("anything.example", "0.0.0.0")
    assert gate.admits({"authorization": f"Bearer {TOKEN}"}) and gate.admits({"authorization": f"bearer {TOKEN}"})
    for header in ("Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \udce9"):
        assert not gate.admits({"authorization": header}), header
    cookie = {"cookie": f"other=1; {COOKIE}={gate.session(NOW)}"}
    assert gate.admits(cookie, NOW + SESSION_SECONDS - 1)
    assert not gate.admits(cookie, NOW + SESSION_SECONDS + 1), "it ends"
    assert not Gate(TOKEN).admits(cookie, NOW), "another process, another key"


def test_a_session_cannot_be_made_longer_or_made_up():
    gate = Gate(TOKEN)
    end, _, signature = gate.session(NOW).partition(".")
    for value in (
        f"{int(end) + 1}.{signature}",
        f"{end}.",
        f"{end}",
        ".",
        f"x.{signature}",
        f"{end}.{signature[:-1]}é",
    ):
        assert not gate.admits({"cookie": f"{COOKIE}={value}"}, NOW), value
    assert not gate.admits({"cookie": "\x00;=;"}, NOW)
    # a bearer that is wrong isn't made good by a cookie that is right
    assert not gate.admits({"authorization": "Bearer no", "cookie": f"{COOKIE}={end}.{signature}"}, NOW)


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(SettingsError, match="has 19 characters, and at least 20 are needed: make one with"):
        Gate(TOKEN[:-1])


@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.4", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_what_only_this_machine_can_reach(host, ours):
    assert is_loopback(host) is ours


def test_the_token_is_read_from_a_private_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AMNESIAC_UI_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("AMNESIAC_UI_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN[::-1]}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN[::-1], "the file comes first"
    file.chmod(0o604)
    with pytest.raises(InputError, match=r"may be read by others \(mode 604\): run `chmod 600"):
        read_token(file)
