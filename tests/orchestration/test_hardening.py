"""The server as shipped, asked for what it must refuse. The tests' own has a password, as an exposed one must."""

import base64
import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from prefect.client.orchestration import get_client

from tasks.prefect_server import ServerError, free_port, local_server

FOREIGN = "https://evil.example"
TOKEN = base64.b64encode(os.environ["PREFECT_SERVER_API_AUTH_STRING"].encode()).decode()
AUTH = {"Authorization": f"Basic {TOKEN}"}


def answer(
    url: str, headers: Mapping[str, str] = AUTH, body: Any = None, method: str | None = None
) -> tuple[int, Mapping[str, str], Any]:
    """Status, headers and JSON of a request as a browser or a script sends it."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            said = response.read().decode()
            return response.status, response.headers, json.loads(said) if said.startswith(("{", "[")) else said
    except HTTPError as refused:
        with refused:
            return refused.code, refused.headers, refused.read().decode()


def test_without_the_password_nothing_is_answered_but_the_health_check(api_url: str) -> None:
    wrong = {"Authorization": f"Basic {base64.b64encode(b'tester:guessed').decode()}"}
    for headers in ({}, wrong, {"Authorization": "Bearer x"}):
        for path, body in (("flow_runs/filter", {}), ("admin/settings", None), ("csrf-token?client=a", None)):
            assert answer(f"{api_url}/{path}", headers, body)[0] in (401, 403), (headers, path)
        assert answer(f"{api_url}/admin/settings", headers)[0] == 401
    assert answer(f"{api_url}/health", {})[0] == 200
    assert answer(f"{api_url}/admin/settings")[0] == 200
    with get_client(sync_client=True) as client:
        assert client.read_flow_runs() is not None, "ours know it"


def test_what_would_change_something_needs_a_token_that_other_pages_cannot_read(api_url: str) -> None:
    status, _, said = answer(f"{api_url}/flow_runs/filter", body={})
    assert (status, "Missing CSRF token" in said) == (403, True)
    _, _, token = answer(f"{api_url}/csrf-token?client=us")
    ours = AUTH | {"Prefect-Csrf-Client": "us", "Prefect-Csrf-Token": token["token"]}
    assert answer(f"{api_url}/flow_runs/filter", ours, {})[0] == 200
    assert answer(f"{api_url}/flow_runs/filter", ours | {"Prefect-Csrf-Client": "them"}, {})[0] == 403


def test_only_the_dashboards_own_origin_is_allowed(api_url: str) -> None:
    port = urlsplit(api_url).port
    for origin, allowed in ((FOREIGN, None), ("http://127.0.0.1:1", None), (f"http://localhost:{port}", "same")):
        _, headers, _ = answer(f"{api_url}/admin/settings", AUTH | {"Origin": origin})
        assert headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        status, headers, _ = answer(f"{api_url}/flow_runs/filter", preflight, method="OPTIONS")
        assert (headers.get("Access-Control-Allow-Origin") == origin) is bool(allowed), (origin, status)
    assert answer(f"{api_url}/admin/settings", AUTH | {"Origin": f"http://127.0.0.1:{port}"})[1][
        "Access-Control-Allow-Origin"
    ]


def test_it_listens_on_loopback_only_and_its_settings_are_ours(api_url: str) -> None:
    port = f"{urlsplit(api_url).port:04X}"
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    assert {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port}")} == {f"0100007F:{port}"}
    found = answer(f"{api_url}/admin/settings")[2]
    assert (found["server"]["analytics_enabled"], found["results"]["persist_by_default"]) == (False, False)
    assert found["results"]["default_serializer"] == "json"
    assert found["server"]["api"]["auth_string"].strip("*") == "", "never shown"
    assert found["server"]["api"]["csrf_protection_enabled"] is True
    assert found["telemetry"]["enable_resource_metrics"] is False
    assert found["server"]["services"]["late_runs"]["after_seconds"] in (300, 300.0, "PT5M")


def test_beyond_this_machine_it_is_not_started_without_a_password(
    other_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(other_home))
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
    for host in ("0.0.0.0", "192.0.2.7", "::"):
        refused = pytest.raises(
            ServerError, match=rf"server on {host} can be reached .*PREFECT_SERVER_API_AUTH_STRING="
        )
        with refused, local_server(free_port(), host):
            pass
    assert not (other_home / "server.log").exists()
