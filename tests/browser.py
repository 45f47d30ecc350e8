"""The system's Chromium, driven by Playwright: nothing is downloaded. For tests and for docs/screenshots.py."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
)  # fmt: skip
MISSING = "no Chromium: `apt-get install chromium`, or set AMNESIAC_CHROMIUM to one"


def chromium() -> str | None:
    """Path of the browser: AMNESIAC_CHROMIUM, else what is on the path; None if there is none."""
    found = [os.environ.get("AMNESIAC_CHROMIUM"), *map(shutil.which, NAMES)]
    return next((path for path in found if path), None)


@contextmanager
def browsing(profile: Path, **options: Any) -> Iterator[Any]:
    """A browser context with a profile of its own. Options are Playwright's, e.g. color_scheme="dark"."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=FLAGS, **options
        )
        try:
            yield context
        finally:
            context.close()
