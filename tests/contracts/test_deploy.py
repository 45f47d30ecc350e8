"""deploy/ and docs/environment.md, as far as they can be checked without Docker and a registry."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.prefect_environment import SETTINGS
from tests.contracts.test_commands import code_lines, complaint

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PAGE = (ROOT / "docs/environment.md").read_text()
DOCUMENTED = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", PAGE))
PLACEHOLDER = re.compile(r"\$\{([A-Z_]+)(?::\?[^}]*)?\}")
SECRET = re.compile(r"PASSWORD|SECRET|AUTH_STRING|TOKEN|ACCESS_KEY")


def variables_of_code() -> set[str]:
    """Names in quotes of what is read or set anywhere in the packages."""
    quoted = re.compile(r"""["']((?:AMNESIAC|PREFECT|DVC|AWS)_[A-Z_]+|DO_NOT_TRACK)["']""")
    files = [path for name in ("amnesiac", "tasks", "flows", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    return {name for path in files for name in quoted.findall(path.read_text())}


def dockerfile() -> dict[str, str]:
    """The ENV of the image."""
    [block] = re.findall(r"^ENV (.*?[^\\])$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    return dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())


def test_every_variable_of_code_and_deploy_is_documented() -> None:
    found = variables_of_code()
    assert {"AMNESIAC_KEYS", "PREFECT_API_URL", "DVC_STAGE"} <= found
    assert not found - DOCUMENTED, "docs/environment.md lacks these"
    named = {name for service in SERVICES.values() for name in service["environment"]}
    named |= set(PLACEHOLDER.findall((ROOT / "deploy/compose.yaml").read_text())) | set(dockerfile())
    assert "POSTGRES_PASSWORD" in named and not named - DOCUMENTED


def test_the_page_documents_nothing_that_is_gone() -> None:
    files = [*ROOT.glob("deploy/*"), ROOT / "deploy/.env.example", *(ROOT / "tests").rglob("*.py")]
    text = " ".join(path.read_text() for path in files)
    assert not [name for name in DOCUMENTED if name not in variables_of_code() and name not in text]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_healthy_or_says_why_not_and_is_reached_from_this_host_only(name: str) -> None:
    service = SERVICES[name]
    check = service["healthcheck"]
    wanted = {"interval", "timeout", "retries"}
    assert name == "deploy" or (check["test"][0] in ("CMD", "CMD-SHELL") and wanted <= set(check))
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", []))
    assert service["restart"] == ("no" if name == "deploy" else "unless-stopped")
    assert re.search(r":[\w.-]*\d", service["image"]) or service["image"] == "amnesiac:local", "pinned by a tag"
    for other, how in service.get("depends_on", {}).items():
        assert how["condition"] in ("service_healthy", "service_completed_successfully") and other in SERVICES
    for mount in service.get("volumes", []):
        source = mount.rsplit(":", 1)[0]
        assert source in COMPOSE["volumes"] or source.startswith("${AMNESIAC_PROJECT_FOLDER:?")


def test_secrets_come_from_the_environment_and_are_asked_for() -> None:
    for name, service in SERVICES.items():
        for variable, value in service["environment"].items():
            if SECRET.search(variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?.*\}", str(value)), f"{name}: {variable}"
    example = (ROOT / "deploy/.env.example").read_text()
    asked = dict(line.split("=", 1) for line in example.splitlines() if "=" in line and not line.startswith("#"))
    assert set(asked) == set(PLACEHOLDER.findall((ROOT / "deploy/compose.yaml").read_text()))
    assert set(asked.values()) == {""}
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "postgresql+asyncpg://prefect:${POSTGRES_PASSWORD:?" in str(SERVICES["server"]["environment"])


def test_what_listens_beyond_loopback_has_a_password_and_the_clients_know_it() -> None:
    server, worker = SERVICES["server"], SERVICES["worker"]
    assert "0.0.0.0" in server["command"] and server["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert worker["environment"]["PREFECT_API_AUTH_STRING"] == server["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert worker["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    for service in ("server", "worker", "deploy"):
        assert SERVICES[service]["cap_drop"] == ["ALL"] and SERVICES[service]["security_opt"]


def test_the_image_sets_what_our_commands_set_and_runs_without_rights() -> None:
    text, given = (ROOT / "deploy/Dockerfile").read_text(), dockerfile()
    per_place = {"PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"}  # the server's own
    assert {name: given.get(name) for name in SETTINGS if name not in per_place} == {
        name: value for name, value in SETTINGS.items() if name not in per_place
    }
    assert "\nUSER amnesiac\n" in text and re.search(r"^FROM python:3\.\d+\.\d+-", text, re.MULTILINE)
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_commands_in_compose_and_guides_exist() -> None:
    for service in SERVICES.values():
        if service.get("command", [""])[0] == "amnesiac":
            assert complaint(service["command"]) is None
    for page in ("deploy", "workers"):
        lines = code_lines((ROOT / f"docs/{page}.md").read_text())
        assert lines and not [words for words in lines if complaint(words)]
