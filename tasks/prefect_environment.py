"""The environment that Prefect and DVC run in: private, silent, without persisted results.

Prefect reads its settings while it is imported, so this module imports nothing but the standard library and
`configure` must run before the first `import prefect` of the process (the command line calls it first of all).
Everything is a default: a variable that the user has set stays as it is.
"""

import logging
import os
import sys
from pathlib import Path

from amnesiac.errors import AmnesiacError

NO_FOREIGN_ORIGIN = "http://127.0.0.1"
"""Allowed origins of a server whose port isn't known yet; `prefect_server` names the port."""
SETTINGS = {
    # nothing leaves the machine
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # nobody else gets in: loopback only; a browser page of another origin can neither read (CORS) nor write (CSRF)
    "PREFECT_SERVER_API_HOST": "127.0.0.1",
    "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": NO_FOREIGN_ORIGIN,
    # a run that waits for another one isn't an alarm yet (Prefect's default is 15 s)
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
    # DVC decides what is stale; what fails is stored all the same (its exception), and the default writes pickles
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # a first start migrates an empty database: 10-13 s on two idle cores, and the default gives up after 20 s
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # a run whose worker is killed stops to beat, and the automation of `amnesiac deploy` calls it crashed
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # the core's loggers show in the dashboard; outside of a flow they must not warn that there is none
    "PREFECT_LOGGING_EXTRA_LOGGERS": "amnesiac",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""Defaults, by variable; `configure` adds the project's private folders."""


class PrefectAlreadyImported(AmnesiacError):
    """Settings would be ignored because Prefect has read its own already."""


def configure(project: Path) -> None:
    """Set the defaults for Prefect and DVC in `os.environ`, and make their private folders below `project/.prefect`.

    Prefect's home (database, server log) and DVC's site cache (by default the world-writable /var/tmp/dvc) get
    mode 0700. May be called again. Raises PrefectAlreadyImported when it comes too late to have an effect.
    """
    home = project.resolve() / ".prefect"
    folders = {"PREFECT_HOME": home, "DVC_SITE_CACHE_DIR": home / "dvc-site-cache"}
    wanted = SETTINGS | {name: str(folder) for name, folder in folders.items()}
    if auth := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        wanted["PREFECT_API_AUTH_STRING"] = auth  # our own clients have to know it too
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing and "prefect" in sys.modules:
        raise PrefectAlreadyImported(
            f"prefect was imported before {', '.join(sorted(missing))} could be set: call "
            "tasks.prefect_environment.configure(project) before anything that imports prefect"
        )
    os.environ.update(missing)
    # Prefect gives extra loggers a handler but no level, and its root logger drops what is below WARNING
    logging.getLogger("amnesiac").setLevel(logging.INFO)
    for name in folders.keys() & missing.keys():
        _make_private(folders[name])


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
