"""Run the demo in a temporary folder and take the pictures of docs/screenshots: `make screenshots`, some minutes.

Two batches (one erased and receipted, one within its grace time), and two requests that wait, one of them for long.
Needs Chromium; with the typeface Inter installed (Debian: fonts-inter) the pictures look as in the repository.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.prefect_server import free_port
from tests.browser import MISSING, browsing, chromium

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "screenshots"
SCHEMES = ("light", "dark")
FOREIGN = ("PREFECT_", "DVC_", "AMNESIAC_UI", "AMNESIAC_PROJECT", "AMNESIAC_KEYS")


def main() -> None:
    """Make the project, serve it, run the batches, take the pictures."""
    if chromium() is None:
        sys.exit(f"{MISSING}; docs/screenshots stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder) / "acme-digits")
        with _served(project) as (prefect, status):
            run = _batches(project)
            with browsing(Path(folder) / "profile", viewport={"width": 1280, "height": 960}) as context:
                _pictures(context, project, prefect, status, run)


def _project(root: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", "pipeline_data/requests.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


@contextmanager
def _served(project: Path) -> Iterator[tuple[str, str]]:
    """`amnesiac serve --ui`; addresses of Prefect's dashboard and of the status page."""
    prefect, status = free_port(), free_port()
    words = ["serve", "--port", str(prefect), "--ui", "--ui-port", str(status)]
    with (project.parent / "serve.log").open("w") as log:
        serving = subprocess.Popen(_words(*words), cwd=project, env=_environment(), stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{status}/api/status", serving, Path(log.name))
            yield f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{status}"
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(120)


def _batches(project: Path) -> str:
    """Two batches, and two requests that wait; the id of the run of the first."""
    said = _run(project, "cycle", "--random-people", "20", "--forget-class", "3")
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(settings.replace("grace_days: 0", "grace_days: 9"))
    _run(project, "request", "add", "--random", "12", "--seed", "7", "--id", "ticket-1041")
    _run(project, "publish")
    long_ago = (datetime.now(UTC) - timedelta(days=26)).strftime("%Y-%m-%dT%H:%M:%S")
    _run(project, "request", "add", "--random", "2", "--seed", "8", "--id", "ticket-1007", "--received", long_ago)
    _run(project, "request", "add", "--random", "1", "--seed", "9", "--id", "ticket-1044")
    return said.rpartition("/runs/flow-run/")[2].split()[0]


def _pictures(context: Any, project: Path, prefect: str, status: str, run: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page, report = context.new_page(), (project / "pipeline_data/evaluation/report.html").as_uri()
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        _picture(page, status, f"status-{scheme}", 1280)
        _picture(page, report, f"report-{scheme}", 1500)
    page.emulate_media(color_scheme="light")
    page.goto(report)
    page.locator("figure").last.screenshot(path=PICTURES / "report-examples.png")
    page.locator("figure").nth(1).screenshot(path=PICTURES / "report-fidelity.png")
    page.goto(f"{prefect}/runs/flow-run/{run}")
    page.get_by_text("Completed").first.wait_for(timeout=300_000)  # the graph itself is a canvas, without text
    _picture(page, None, "prefect-run", 960)


def _picture(page: Any, address: str | None, name: str, height: int) -> None:
    page.set_viewport_size({"width": 1280, "height": height})
    if address:
        page.goto(address)
    page.wait_for_timeout(3000 if address is None else 500)  # Prefect draws its graph step by step
    page.screenshot(path=PICTURES / f"{name}.png")
    print(f"docs/screenshots/{name}.png")


def _run(project: Path, *words: str) -> str:
    done = subprocess.run(_words(*words), cwd=project, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _words(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("amnesiac")), *words]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end, opener = time.monotonic() + 300, urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"the server didn't come up:\n{log.read_text()}")
        try:
            opener.open(address, timeout=10).close()
            return
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
