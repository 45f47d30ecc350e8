"""The status page and its login form, filled from templates; style and script lie beside them and are served as files.

Everything is escaped, and the page works without the script: that only keeps it up to date.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from amnesiac.requests.states import STATES

Asset = Literal["status.css", "status.js"]
SHORT = 12
"""Hex digits of a version's id that are shown."""


def render_status(facts: Mapping[str, Any], *, prefect_url: str | None = None, sign_out: bool = False) -> str:
    """The page, for what `tasks.overview.overview` returned. `prefect_url`: of a dashboard that the reader can open."""
    return _page("status.html", facts=facts, prefect_url=prefect_url, sign_out=sign_out, states=STATES)


def render_login(failed: bool = False) -> str:
    """The form that asks for the token."""
    return _page("login.html", failed=failed)


def render_problem(title: str, message: str) -> str:
    """A page for what can't be shown, and what to do about it."""
    return _page("problem.html", title=title, message=message)


@cache
def asset(name: Asset) -> bytes:
    """Style or script of the page."""
    return files("amnesiac.pages").joinpath(name).read_bytes()


def _page(name: str, **context: object) -> str:
    return _environment().get_template(name).render(**context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("amnesiac", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=_moment, short=_short, left=_left, span=_span)
    environment.filters.update(plain_times=_plain_times, code=_code)
    return environment


def _moment(value: str | None) -> str:
    """2026-11-23T19:59:29Z as 2026-11-23 19:59; – for None."""
    return value[:16].replace("T", " ") if value else "–"


def _plain_times(text: str) -> str:
    """Every ISO-8601 time in a text as `_moment` shows it."""
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ", r"\1 \2", text)


def _code(text: str) -> Markup:
    """A text, escaped, with what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def _short(value: str | None) -> str:
    return value[:SHORT] if value else "–"


def _left(days: int) -> str:
    """Whole days until a deadline in words."""
    if days < 0:
        return f"{-days} day{'s' if days != -1 else ''} overdue"
    return "less than a day" if days == 0 else f"{days} day{'s' if days != 1 else ''} left"


def _span(seconds: float) -> str:
    """A number of seconds in the largest unit that it is at least two of, e.g. "24 hours"."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:g} seconds"
