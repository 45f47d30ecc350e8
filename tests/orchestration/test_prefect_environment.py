import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tasks.prefect_environment import PrefectAlreadyImported, configure

ROOT = Path(__file__).parents[2]
SETTINGS = """
import sys
from pathlib import Path
import tasks.prefect_server
from tasks.prefect_environment import configure
assert "prefect" not in sys.modules
configure(Path(sys.argv[1]))
configure(Path(sys.argv[1]))
from prefect.settings import get_current_settings
found = get_current_settings()
print(found.home, found.server.analytics_enabled, found.results.persist_by_default, found.results.default_serializer,
      found.server.ephemeral.startup_timeout_seconds, found.logging.extra_loggers, found.api.url)
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing of Prefect or DVC is set."""
    for name in os.environ:
        if name.startswith(("PREFECT_", "DVC_", "DO_NOT_TRACK")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_prefect_reads_what_was_configured_before_its_import(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "77")
    command = [sys.executable, "-c", SETTINGS, str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}/.prefect False False json 77 ['amnesiac'] None\n"


def test_the_folders_are_private(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.delitem(sys.modules, "prefect", raising=False)
    configure(tmp_path)
    for name in ("PREFECT_HOME", "DVC_SITE_CACHE_DIR"):
        folder = Path(os.environ[name])
        assert folder.is_relative_to(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_the_user_chose_is_left_alone(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.delitem(sys.modules, "prefect", raising=False)
    bare.setenv("PREFECT_HOME", str(tmp_path / "mine"))
    configure(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_configuring_after_the_import_is_refused(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setitem(sys.modules, "prefect", ModuleType("prefect"))
    with pytest.raises(PrefectAlreadyImported, match="before .*PREFECT_HOME.* could be set: call"):
        configure(tmp_path)
    assert "PREFECT_HOME" not in os.environ
