"""The status page as a function of facts."""

import pytest

from amnesiac.pages import asset, render_login, render_problem, render_status
from tests.evaluation.test_report import NASTY, read

REQUEST = {
    "request_id": "ticket-1", "state": "RECEIVED", "received": "2026-11-01T08:00:00Z", "due": "2026-12-01T08:00:00Z",
    "days_left": 5, "alarm": "due soon", "kind": "subject", "receipt": None,
}  # fmt: skip
BATCH = {
    "number": 2, "state": "PUBLISHED", "ended": None, "requests": 3, "samples": 41, "run": "0af3", "head": True,
    "at": "2026-11-23T19:59:41Z", "why": "it can be rolled back until tomorrow", "events": [],
    "verdict": {"level": "partly", "sentence": "The model is partly there."},
}  # fmt: skip
VERSION = {
    "batch": 2, "version": "f" * 64, "at": "2026-11-23T19:59:41Z", "published": "repaired.safetensors", "samples": 41,
    "drift": 0.5, "head": True, "kept": True, "rolled_back_at": None,
}  # fmt: skip
HEAD = {
    "version": "f" * 64, "published_at": "2026-11-23T19:59:41Z", "batch": 2, "method": "settled", "requests": 3,
    "samples": 1041, "verdict": "needs_repair", "drift": 0.5,
}  # fmt: skip
SCHEDULE = {
    "cron": None,
    "interval_seconds": 86400.0,
    "minimum_requests": 1,
    "maximum_wait_seconds": 604800.0,
    "waiting": False,
}
FACTS = {
    "project": "acme", "at": "2026-11-23T20:00:00Z", "alarms": [], "pending": 1, "due_soon": ["ticket-1"],
    "overdue": [], "head": HEAD, "drift": {"now": 0.5, "budget": 2.0}, "batches": [BATCH], "versions": [VERSION],
    "requests_shown": [REQUEST], "requests_left_out": 0, "schedule": SCHEDULE,
}  # fmt: skip


def test_it_says_what_is_where():
    text = read(render_status(FACTS)).text
    for wanted in (
        "acme", "All in order.", "1,041", "25 %", "needs repair", "fffffffffff", "it can be rolled back until tomorrow",
        "The model is partly there.", "ticket-1", "5 days left",
        "Every 24 hours, once 1 request is pending, or one has waited for 7 days.",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_links_go_where_the_reader_can_follow():
    reader = read(render_status(FACTS))
    assert "/reports/2" in reader.links and not [link for link in reader.links if "flow-run" in link]
    reader = read(render_status(FACTS, prefect_url="http://127.0.0.1:4200"))
    assert "http://127.0.0.1:4200/runs/flow-run/0af3" in reader.links
    answered = REQUEST | {"alarm": "answered", "receipt": 12, "state": "RECEIPTED"}
    reader = read(render_status(FACTS | {"requests_shown": [answered], "requests_left_out": 30}))
    assert "/receipts/12" in reader.links and "30 more are answered" in reader.text
    unevaluated = read(render_status(FACTS | {"batches": [BATCH | {"verdict": None}]}))
    assert "/reports/2" not in unevaluated.links and "not compared with retraining" in unevaluated.text


@pytest.mark.parametrize(
    ("days", "said"), [(-1, "1 day overdue"), (-9, "9 days overdue"), (0, "less than a day"), (1, "1 day left")]
)
def test_deadlines_in_words(days, said):
    assert said in read(render_status(FACTS | {"requests_shown": [REQUEST | {"days_left": days}]})).text


def test_alarms_are_counted_in_the_title():
    alarms = [{"level": "bad", "title": "1 overdue.", "text": "Run `amnesiac publish` <now>."}] * 2
    page = render_status(FACTS | {"alarms": alarms})
    assert "<title>(2) acme · amnesiac</title>" in page and page.count('class="alarm bad"') == 2
    assert "All in order" not in page
    assert page.count("Run <code>amnesiac publish</code> &lt;now&gt;.") == 2


def test_a_drift_beyond_its_budget_fills_the_meter_and_no_more():
    page = render_status(FACTS | {"drift": {"now": 5.0, "budget": 2.0}})
    assert "250 %" in page and 'width="100.0"' in page


def test_sign_out_is_offered_to_who_signed_in():
    assert "Sign out" in render_status(FACTS, sign_out=True) and "Sign out" not in render_status(FACTS)


def test_everything_is_escaped_and_nothing_comes_from_elsewhere():
    facts = FACTS | {
        "project": NASTY,
        "requests_shown": [REQUEST | {"request_id": NASTY, "kind": NASTY}],
        "batches": [BATCH | {"why": NASTY, "verdict": {"level": "far", "sentence": NASTY}}],
    }
    page = render_status(facts, prefect_url="javascript:alert(1)")
    reader = read(page)
    assert reader.tags.count("script") == 1 and reader.text.count(NASTY) >= 5
    assert not [link for link in read(render_status(FACTS)).links if not link.startswith(("/", "#", "data:"))]
    assert "<script>alert" not in render_problem(NASTY, NASTY)


def test_form_and_files():
    assert "That isn't the token." in read(render_login(failed=True)).text and "That isn" not in render_login()
    assert b"prefers-color-scheme: dark" in asset("status.css") and b"url(" not in asset("status.css")
    script = asset("status.js")
    assert b"innerHTML" not in script and b"http" not in script and b"eval" not in script
