"""The page and the text say all that the receipt says, escape what they are given, and need nothing else."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from amnesiac.receipts import Algorithm, as_page, as_text, verify_file
from amnesiac.receipts.facts import to_json

EVIL = '<script>alert("x")</script>&<img src=http://evil/>'


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def signed(chain, key, make):
    return chain.append(make(verdict=EVIL, algorithm=Algorithm("settled", EVIL)), key).signed


def leaves(value):
    """Every text and number of the facts as the page writes it."""
    if isinstance(value, dict):
        return {text for part in value.values() for text in leaves(part)}
    if isinstance(value, list):
        return {text for part in value for text in leaves(part)}
    if value is None:
        return {"not measured"}
    return {f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else value}


def test_every_fact_stands_on_the_page_and_in_the_text(signed):
    page, text = Page(as_page(signed)).text, " ".join(as_text(signed).split())
    facts = leaves(to_json(signed.receipt))
    assert len(facts) > 30
    for fact in facts | {signed.sha256, signed.keyid, "published in time"}:
        assert fact in page
        assert " ".join(fact.split()) in text


def test_what_the_facts_hold_is_escaped(signed):
    page = Page(as_page(signed))
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "link", "object", "form"} == set()
    assert EVIL in page.text


def test_the_page_asks_for_nothing_and_is_made_for_light_dark_and_paper(signed):
    html = as_page(signed)
    page = Page(html)
    policy = [given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not [given for _, given in page.tags if {"src", "href", "action", "style"} & set(given)]
    assert not re.search(r"url\(|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_page_carries_the_file_and_it_verifies(signed, tmp_path, key):
    pre = re.search(r"<pre>(.*?)</pre>", as_page(signed), re.DOTALL)
    (tmp_path / "saved.json").write_text(Page(pre[1]).text)
    assert verify_file(tmp_path / "saved.json", key.public) == signed
    assert json.loads(base64.b64decode(json.loads(Page(pre[1]).text)["payload"]))["predicate"]["sequence"] == 1


def test_the_text_is_plain_and_says_what_is_not_claimed(signed):
    text = as_text(signed)
    assert text.startswith("Deletion receipt 1, request r-1: published in time\n")
    assert "Not claimed: Indirect influence" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ({"PUBLISHED": "2026-12-01T08:00:00Z"}, "published in time"),
        ({"PUBLISHED": "2026-12-01T08:00:01Z", "RECEIVED": "2026-11-01T08:00:00Z"}, "published after the deadline"),
        ({}, "no time of publication is stated"),
    ],
)
def test_the_deadline_is_compared_with_the_publication(states, sentence, signed):
    late = replace(signed, receipt=replace(signed.receipt, states=states))
    assert as_text(late).splitlines()[0].endswith(sentence)
    assert sentence in as_page(late)


def test_sections_without_facts_are_left_out(signed):
    empty = replace(signed, receipt=replace(signed.receipt, purged=(), metrics={}))
    assert "Removed from" not in as_text(empty)
    assert "Measured" not in as_page(empty)
