"""The status page over HTTP: what it says, to whom, and what it refuses."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amnesiac.errors import InputError
from flows.cli import app
from flows.web import status_page
from tests.pipeline.project import Project

TOKEN = "a-token-of-at-least-twenty-characters"  # noqa: S105 (of a test)
SAMPLE_ID = re.compile(rb"mnist-5k-\d{5}")
Answer = tuple[int, HTTPMessage, bytes]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


def ask(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> Answer:
    """One request as it is; headers by name with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def files(root: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))]
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def url(shown: Project) -> Iterator[str]:
    with status_page("127.0.0.1", 0, None, "http://127.0.0.1:4200") as address:
        yield address


@pytest.fixture
def guarded(shown: Project) -> Iterator[str]:
    with status_page("127.0.0.1", 0, TOKEN) as address:
        yield address


def test_the_status_as_json_and_as_a_page_and_nothing_is_written(url: str, shown: Project) -> None:
    before = files(shown.root)
    code, headers, body = ask(f"{url}/api/status")
    found = json.loads(body)
    assert (code, headers["content-type"]) == (200, "application/json")
    assert found["requests"] == {"PUBLISHED": 2}
    [batch] = found["batches"]
    assert (batch["number"], batch["state"], batch["requests"], batch["head"]) == (1, "PUBLISHED", 2, True)
    assert batch["why"].startswith("it can be rolled back until")
    assert batch["verdict"]["sentence"] == json.loads(ask(f"{url}/reports/1.json")[2])["verdict"]["sentence"]
    assert {one["receipt"] for one in found["requests_shown"]} == {1, None}
    assert "file" not in found["head"], "where files lie is nothing for a page"
    page = ask(url)[2].decode()
    assert found["head"]["version"] in page and f"/runs/flow-run/{batch['run']}" in page
    assert all(one["request_id"] in page for one in found["requests_shown"])
    assert files(shown.root) == before


def test_no_id_of_a_person_is_served(url: str, shown: Project) -> None:
    assert SAMPLE_ID.search((shown.data / "journal/deletions.sqlite").read_bytes()), "or nothing could be found"
    paths = ("/", "/api/status", "/reports/1", "/reports/1.md", "/reports/1.json", "/receipts/1", "/receipts/1.json")
    for path in paths:
        code, _, body = ask(url + path)
        assert code == 200, path
        assert not SAMPLE_ID.search(body), path
        assert b"data:image" not in body or path == "/", "no picture of anybody"


def test_every_answer_forbids_caching_framing_and_foreign_content(url: str) -> None:
    for path in ("/", "/api/status", "/reports/1", "/receipts/1", "/nothing", "/status.css"):
        headers = ask(url + path)[1]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy or path in ("/reports/1", "/receipts/1")
        assert "server" not in headers


def test_only_reading_is_allowed(url: str) -> None:
    assert ask(url, "HEAD")[::2] == (200, b"")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        code, _, _ = ask(url, method, Origin=url)
        assert code == 405, method


def test_nothing_outside_of_the_archive_can_be_had(url: str) -> None:
    for path in (
        "/reports/../params.yaml", "/reports/%2e%2e%2f%2e%2e%2fparams.yaml", "/reports/1.html.bak", "/reports/1.yaml",
        "/reports/1/../../journal/deletions.sqlite", "/receipts/..%2fsigning", "/reports/-1", "/reports/2",
        "/receipts/2", "/receipts/99999999999999999999", "/status.py",
    ):  # fmt: skip
        assert ask(url + path)[0] == 404, path


def test_a_name_that_was_pointed_here_is_refused(url: str, guarded: str) -> None:
    port = url.rpartition(":")[2]
    assert ask(url, Host=f"localhost:{port}")[0] == 200
    code, _, body = ask(url, Host=f"evil.example:{port}")
    assert code == 421 and b"doesn't answer to that name" in body.replace(b"&#39;", b"'")
    assert ask(guarded, Host="evil.example", Authorization=f"Bearer {TOKEN}")[0] == 200, (
        "a token is stronger than names"
    )


def test_a_guarded_page_asks_for_the_token(guarded: str) -> None:
    code, headers, _ = ask(guarded)
    assert (code, headers["location"]) == (303, "/login")
    code, headers, body = ask(f"{guarded}/api/status")
    assert (code, headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer" in json.loads(body)["error"]
    assert ask(f"{guarded}/reports/1")[0] == 303
    assert ask(f"{guarded}/api/status", Authorization="Bearer wrong")[0] == 401
    assert ask(f"{guarded}/api/status", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(f"{guarded}/login")[0] == 200


def test_the_form_gives_a_cookie_that_scripts_and_other_sites_cannot_use(guarded: str) -> None:
    wrong = ask(f"{guarded}/login", "POST", b"token=wrong", Origin=guarded)
    assert wrong[0] == 401 and b"isn't the token" in wrong[2].replace(b"&#39;", b"'")
    assert wrong[1]["set-cookie"] is None
    right = f"token={TOKEN}".encode()
    assert ask(f"{guarded}/login", "POST", right)[0] == 403, "no Origin: not one of our pages"
    assert ask(f"{guarded}/login", "POST", right, Origin="http://evil.example")[0] == 403
    code, headers, _ = ask(f"{guarded}/login", "POST", right, Origin=guarded)
    cookie = headers["set-cookie"]
    assert (code, headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    value = cookie.partition(";")[0]
    assert ask(guarded, Cookie=value)[0] == 200
    assert ask(guarded, Cookie=value[:-1] + ("0" if value[-1] != "0" else "1"))[0] == 303, "a forged signature"
    assert ask(f"{guarded}/login", "POST", b"token=" + b"x" * 5000, Origin=guarded)[0] == 413


def test_damaged_data_is_said_and_no_file_is_shown(url: str, shown: Project) -> None:
    [kept] = (shown.data / "reports").glob("*/report.json")
    kept.write_text("{}")
    code, _, body = ask(f"{url}/api/status")
    assert code == 500 and "restore it from a backup, or delete its folder" in json.loads(body)["error"]
    (shown.data / "journal/deletions.sqlite").write_bytes(b"nonsense" * 1000)
    code, _, body = ask(f"{url}/api/status")
    assert code == 500 and "restore" in json.loads(body)["error"]
    code, _, body = ask(url)
    assert code == 500 and b"can&#39;t be read" in body and b"Traceback" not in body


def test_a_project_without_anything_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Project) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "params.yaml").write_text((shown.root / "params.yaml").read_text())
    monkeypatch.setenv("AMNESIAC_PROJECT", str(empty))
    with status_page("127.0.0.1", 0, None) as url:
        code, _, body = ask(url)
    assert code == 200 and b"Nothing is published yet" in body and b"Nobody has asked" in body
    assert [path.name for path in empty.rglob("*")] == ["params.yaml"], "looking creates nothing"


def test_other_machines_need_a_token() -> None:
    with pytest.raises(InputError, match="reached from other machines, and the status page has no token"):  # noqa: SIM117
        with status_page("0.0.0.0", 0, None):
            pass


def test_a_taken_port_is_named(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(InputError, match=f"can't listen on 127.0.0.1, port {port}"):  # noqa: SIM117
        with status_page("127.0.0.1", port, None):
            pass


@pytest.fixture
def run(shown: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("PREFECT_API_URL", str(shown.server))
    return lambda *words, **env: CliRunner().invoke(app, ["ui", *words], env=env)


def test_the_command_refuses_to_start_open_or_with_a_token_that_others_can_read(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    found = run("--ui-host", "0.0.0.0", "--ui-port", "0")
    assert found.exit_code == 2 and "set AMNESIAC_UI_TOKEN or --token-file" in found.output
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o640)
    found = run("--token-file", str(file))
    assert found.exit_code == 2 and f"chmod 600 {file}" in found.output
    file.chmod(0o600)
    file.write_text("\n")
    assert "is empty" in run("--token-file", str(file)).output
    assert "can't be read" in run("--token-file", str(tmp_path / "none")).output
    found = run(AMNESIAC_UI_TOKEN="short")
    assert found.exit_code == 2 and "at least 20 are needed" in found.output
    assert "AMNESIAC_UI_TOKEN" not in os.environ
