"""Status page and report in a real browser: what they load, how they look, and whether a keyboard is enough."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amnesiac.evaluation import draw_figures, facts_from_json, render_report, to_svg
from flows.web import status_page
from tests.browser import MISSING, browsing, chromium
from tests.pipeline.project import Project
from tests.pipeline.test_web import TOKEN

pytest.importorskip("playwright", reason="playwright isn't installed: pip install -e '.[dev]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)

SCHEMES = ("light", "dark")
# the contrast of every visible text with what lies behind it (WCAG 2, 1.4.3), the lowest first
CONTRASTS = """() => {
  const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length || e.closest('svg, script, style, .skip')) continue;
    const pair = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
    const what = e.tagName + ' ' + e.className + ': ' + walk.currentNode.data.trim();
    found.push([(pair[0] + .05) / (pair[1] + .05), what]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


class Watched:
    """A page, and what it asked for, what its console said and what was thrown."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("chromium"), viewport={"width": 1200, "height": 900}) as context:
        context.set_default_timeout(90_000)  # a bound, no expectation: the machine may be busy
        yield context


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Open an address in a colour scheme; the session's cookies are new."""
    browser.clear_cookies()
    pages: list[Any] = []

    def open_page(address: str, scheme: str = "light") -> Watched:
        page = browser.new_page()
        pages.append(page)
        page.emulate_media(color_scheme=scheme)
        watched = Watched(page)
        page.goto(address)
        return watched

    yield open_page
    for page in pages:
        page.close()


@contextmanager
def served(token: str | None = None) -> Iterator[str]:
    with status_page("127.0.0.1", 0, token) as url:
        yield url


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_status_page_loads_only_its_own_and_can_be_read(
    scheme: str, opened: Callable[..., Watched], shown: Project
) -> None:
    with served() as url:
        watched = opened(url, scheme)
        page = watched.page
        assert page.inner_text("h1") == "Deletion status"
        assert "rolled back until" in page.inner_text("#live")
        assert watched.complaints == []
        assert {r.removeprefix(url) for r in watched.requests if not r.startswith("data:")} == {
            "/", "/status.css", "/status.js",
        }  # fmt: skip
        lowest = page.evaluate(CONTRASTS)[0]
        assert lowest[0] >= 4.5, lowest
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(244, 246, 248)", "dark": "rgb(15, 19, 23)"}[scheme]
        page.set_viewport_size({"width": 380, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 380, "nothing sticks out on a telephone"


def test_links_lead_to_report_receipt_and_json_with_the_keyboard_alone(
    opened: Callable[..., Watched], shown: Project
) -> None:
    with served() as url:
        watched = opened(url)
        page = watched.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        seen = []
        while (place := page.evaluate("document.activeElement.getAttribute('href')")) != "/reports/1":
            page.keyboard.press("Tab")
            seen.append(place)
            assert len(seen) < 20, seen
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
        page.keyboard.press("Enter")
        page.wait_for_url("**/reports/1")
        assert page.inner_text("h1").startswith("Unlearning report")
        page.locator("a[href$='00000001.json']").click()
        page.wait_for_url("**/receipts/00000001.json")
        assert "dsse" in page.inner_text("body").lower() or "payload" in page.inner_text("body")
        page.goto(url)
        page.locator("a[href='/receipts/1']").click()
        assert page.inner_text("h1") == "Deletion receipt 1"
        page.goto(url)
        page.locator("a[href='/api/status']").click()
        assert json.loads(page.inner_text("pre"))["pending"] == 0
        assert watched.complaints == []


def test_the_page_takes_over_what_is_new_and_keeps_the_focus(opened: Callable[..., Watched], shown: Project) -> None:
    with served() as url:
        page = opened(url).page
        page.locator("a[href='/reports/1']").focus()
        page.evaluate("document.getElementById('live').dataset.old = 'yes'")
        journal = shown.data / "journal/deletions.sqlite"
        journal.rename(journal.with_suffix(".away"))
        page.evaluate("refresh()")
        page.wait_for_function("document.getElementById('live').dataset.old === undefined")
        assert "Nobody has asked for a deletion." in page.inner_text("#live")
        journal.with_suffix(".away").rename(journal)
        page.evaluate("refresh()")
        page.wait_for_function("document.querySelector(\"a[href='/reports/1']\") !== null")
    page.evaluate("refresh()")
    page.wait_for_function("document.getElementById('refreshed').textContent.includes(\"isn't up to date\")")


def test_signing_in_and_out(opened: Callable[..., Watched], shown: Project) -> None:
    with served(TOKEN) as url:
        page = opened(url).page
        page.wait_for_url("**/login")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("not the token")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]", timeout=60_000)
        assert page.evaluate(CONTRASTS)[0][0] >= 4.5
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/")
        assert page.inner_text("h1") == "Deletion status"
        [cookie] = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        page.goto(url)
        page.wait_for_url("**/login")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_report_is_one_file_that_can_be_read_in_both_schemes(
    scheme: str, opened: Callable[..., Watched], shown: Project
) -> None:
    [report] = (shown.data / "reports").glob("*/report.html")
    watched = opened(report.as_uri(), scheme)
    page = watched.page
    assert watched.requests == [report.as_uri()]
    assert watched.complaints == []
    assert page.evaluate(
        "[...document.querySelectorAll('figure > svg')].every(s => s.getAttribute('aria-label').length > 30)"
    )
    assert page.evaluate("[...document.querySelectorAll('thead th')].every(th => th.scope)")
    assert page.evaluate("document.images.length") == 0, "no picture of anybody is kept"
    page.locator("summary").click()
    lowest = page.evaluate(CONTRASTS)[0]
    assert lowest[0] >= 4.5, lowest
    ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == {"light": "rgb(22, 32, 42)", "dark": "rgb(232, 236, 240)"}[scheme], "figures follow the scheme"


def test_the_report_prints_on_paper(opened: Callable[..., Watched], shown: Project) -> None:
    [report] = (shown.data / "reports").glob("*/report.html")
    page = opened(report.as_uri(), "dark").page
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 2 <= pages <= 8
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.querySelector('.sheet')).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate(CONTRASTS)[0][0] >= 4.5


def test_names_that_look_like_markup_do_nothing(opened: Callable[..., Watched], shown: Project, tmp_path: Path) -> None:
    [found] = (shown.data / "reports").glob("*/report.json")
    record = json.loads(found.read_text().replace("mnist-5k", "<img src=x onerror=document.title='owned'>"))
    figures = {name: to_svg(figure) for name, figure in draw_figures(record["metrics"]).items()}
    (tmp_path / "nasty.html").write_text(render_report(record["metrics"], facts_from_json(record["facts"]), figures))
    watched = opened((tmp_path / "nasty.html").as_uri())
    assert watched.page.title() != "owned"
    assert watched.page.locator("img").count() == 0
    assert watched.complaints == []
