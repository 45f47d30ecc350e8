import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from amnesiac.evaluation import ReportFacts, compare, draw_figures, render_report, to_svg
from amnesiac.models import build_model
from amnesiac.settings import ModelSettings

NASTY = "<script>alert('x')</script>"
FACTS = ReportFacts(
    requests=3,
    subjects=41,
    samples=1398,
    method="per-sample-delta",
    data="mnist-5k",
    model="mlp",
    seconds={"train": 20.0, "retrain": 18.0, "unlearn": 0.1},
    settings={"epochs": 10, "optimizer": "sgd"},
    version="v2",
)


@pytest.fixture(scope="module")
def measured():
    """Real metrics of three models on random samples, the third class named to break pages."""
    names = ["zero", "one", NASTY]
    models = {
        role: build_model(ModelSettings(factory="mlp"), (1, 4, 4), 3, seed)
        for seed, role in enumerate(("original", "unlearned", "retrained"))
    }
    generator = torch.Generator().manual_seed(0)
    sets = {
        name: (torch.randn(n, 1, 4, 4, generator=generator), torch.arange(n) % 3)
        for name, n in (("forget", 9), ("retain", 30), ("test", 30))
    }
    return compare(models["original"], {role: m.state_dict() for role, m in models.items()}, sets, names)


def page(metrics, facts=FACTS):
    return render_report(metrics, facts, {name: to_svg(figure) for name, figure in draw_figures(metrics).items()})


class Reader(HTMLParser):
    """Collects tags, links and text, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    reader.text = re.sub(r"\s+", " ", reader.text)
    return reader


def test_the_page_says_what_was_asked_what_came_out_and_what_it_does_not_show(measured):
    text = read(page(measured)).text
    for wanted in (
        "Unlearning report v2",
        "deletion requests",
        "1,398",
        "per-sample-delta",
        "This isn't certified unlearning",
        "only bounded by the metrics",
        "relative verification error",
        f"{100 * measured['unlearned']['test_accuracy']:.1f}",
        f"{measured['kl_forget']:#.3g}",
    ):
        assert wanted in text


def test_ids_that_are_not_held_are_listed_opaquely_by_request(measured):
    assert "Not held" not in read(page(measured)).text
    text = read(page(measured, replace(FACTS, not_held={"ticket-41": ["ab" * 32, "cd" * 32]}))).text
    assert "Not held" in text and f"ticket-41 {'ab' * 32} {'cd' * 32}" in text.replace("ticket-41", "ticket-41 ")


def test_a_model_that_is_far_from_retraining_is_called_so(measured):
    html = page(measured)
    assert 'class="verdict far"' in html
    assert "The unlearned model is far from retraining" in read(html).text


def test_the_repaired_model_is_shown_beside_the_result_without_repair(measured):
    repaired = {**measured, "repaired": measured["retrained"]}
    html = page(repaired)
    assert 'class="verdict far"' in html and 'class="verdict close"' in html
    assert "The repaired model behaves much like the retrained one." in read(html).text
    assert html.index('<th scope="row">unlearned') < html.index('<th scope="row">repaired')


def test_everything_is_escaped(measured):
    facts = replace(
        FACTS, method=NASTY, data=NASTY, model=NASTY, version=NASTY, settings={NASTY: NASTY}, seconds={NASTY: 1.0}
    )
    html = page(measured, facts)
    reader = read(html)
    assert "script" not in reader.tags
    assert "&lt;script&gt;" in html
    assert reader.text.count(NASTY) >= 8


def test_the_page_needs_nothing_else(measured):
    html = page(measured)
    reader = read(html)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(reader.tags)
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_timings_are_compared_with_retraining(measured):
    text = read(page(measured)).text
    assert "train 20.0 s 1.1" in re.sub(r"(?<=[a-z])(?=\d)|(?<=s)(?=\d)", " ", text)
    assert "100 ms" in text and "1/180" in text
    assert "ratio to retraining" not in read(page(measured, replace(FACTS, seconds={}))).text


def test_without_a_retraining_time_there_is_no_ratio(measured):
    html = page(measured, replace(FACTS, seconds={"unlearn": 150.0}))
    assert "<td>2.5 min</td><td>–</td>" in html


def test_an_empty_forget_set_makes_a_page_too(measured):
    empty = {**measured, "samples": {**measured["samples"], "forget": 0}}
    for role in ("original", "unlearned", "retrained"):
        empty[role] = {**measured[role], "forget_accuracy": None, "kl_forget": None, "margin_forget": None}
    html = page(empty, replace(FACTS, requests=0, subjects=0, samples=0))
    assert "There was nothing to forget" in html
    assert "<td>–</td>" in html and "nan" not in read(html).text.lower()


def test_the_same_arguments_give_the_same_page(measured):
    assert page(measured) == page(measured)
