"""The parts that a batch's report adds: what was asked, cost, drift, audit, and the same as Markdown and JSON."""

import json
import re
from dataclasses import replace

import pytest

from amnesiac.errors import DamagedStore
from amnesiac.evaluation import (
    Asked,
    BatchFacts,
    Drift,
    audit_from_json,
    audit_of,
    draw_figures,
    facts_from_json,
    facts_to_json,
    headline,
    render_markdown,
    render_report,
    to_svg,
)
from amnesiac.evaluation.cost import cost_sentence, size
from tests.evaluation.test_report import FACTS, NASTY, measured, read  # noqa: F401 (a fixture)

BATCH = BatchFacts(
    number=7,
    asked=(Asked("ticket-1", "subject", 1, "2026-11-01T08:00:00Z", "2026-12-01T08:00:00Z", 3),
           Asked("r-2", "class", 2, "2026-11-02T08:00:00Z", "2026-12-02T08:00:00Z")),
    states={"RECEIVED": "2026-11-03T08:00:00Z", "PUBLISHED": "2026-11-03T08:01:00Z"},
    erased={"keys": 519, "bytes": 983_000},
    scan={"files": 133, "bytes": 55_400_000, "things": 647, "hits": 0, "gaps": 2},
)  # fmt: skip
FULL = replace(
    FACTS,
    batch=BATCH,
    drift=Drift(0.5, 2.0, 0.08, 0.105, "needs_repair"),
    bytes={"ledger, all samples": 14_500_000},
    seconds={"train": 20.0, "seal": 10.0, "unlearn": 0.1, "repair": 0.4, "retrain": 9.0},
)
ULIRA = {
    "auc": 0.51, "auc_low": 0.47, "auc_high": 0.55, "tpr_at_1_fpr": 0.012,
    "curve": {"fpr": [0.001, 0.1, 1.0], "tpr": [0.002, 0.12, 1.0]},
}  # fmt: skip
AUDIT = {
    "method": "settled", "models": 32, "run": "abc", "share": 0.01,
    "verdict": {"sentence": "Can't be told apart.", "check": "The audit passes its own check.", "sound": True},
    "sets": {
        "random": {
            "samples": 40,
            "null_band": {"models": 32, "low": {"0.5": 0.2}, "high": {"0.5": 0.9}},
            "models": {
                "original": {"ulira": {**ULIRA, "auc": 0.83}, "klom_forget": {"0.5": 4.2}},
                "settled": {"ulira": ULIRA, "klom_forget": {"0.5": 0.6}},
                "reference": {"forget_accuracy": 0.9},
            },
        }
    },
}  # fmt: skip


def html(metrics, facts=FULL, audit=None):
    figures = {name: to_svg(figure) for name, figure in draw_figures(metrics, audit=audit).items()}
    return render_report(metrics, facts, figures, audit)


def markdown_tables(text):
    """Rows of cells by table; every row of one has as many cells."""
    tables, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(re.split(r"(?<!\\)\|", line)[1:-1])
        elif rows:
            assert {len(row) for row in rows} == {len(rows[0])}, rows
            tables.append(rows)
            rows = []
    return tables


def test_page_and_markdown_say_what_was_asked_what_happened_and_what_it_cost(measured):  # noqa: F811
    said = read(html(measured)).text, render_markdown(measured, FULL).replace("\\", "")
    for text in said:
        for wanted in (
            "deletion batch 7", "ticket-1", "r-2", "subject", "PUBLISHED", "519", "983 kB", "647", "needs repair",
            "14.5 MB", "10.5 %", "Deleting took 500 ms, retraining 9.0 s: 18 times as long.", "amnesiac audit",
        ):  # fmt: skip
            assert wanted in text, wanted
    assert "2026-12-01 08:00" in said[0] and "receipts/00000003.json" in html(measured)
    assert '"width": ' not in html(measured) and 'width="25.00"' in html(measured), "a quarter of the drift budget"


def test_markdown_has_whole_tables_and_nothing_that_breaks_out_of_them(measured):  # noqa: F811
    facts = replace(FULL, method=NASTY, data="a | b\n# c", version="`v`")
    text = render_markdown(measured, facts)
    tables = markdown_tables(text)
    assert [table[0][0].strip() for table in tables] == ["request", "model", "class", "what"]
    assert [row[0].strip() for row in tables[1][2:]] == ["original", "unlearned", "retrained"]
    assert "<script" not in text and "\n# c" not in text and "`v`" not in text.replace("\\`v\\`", "")
    shown = f"{100 * measured['unlearned']['test_accuracy']:.1f}"
    assert tables[1][3][3].strip() == shown


def test_the_headline_is_about_what_is_published(measured):  # noqa: F811
    assert headline(measured, "unlearned").level == "far"
    both = {**measured, "repaired": measured["retrained"], "band": {"models": 2, "kl_forget": 1.0, "kl_test": 1.0}}
    found = headline(both, "repaired")
    assert found.level == "close" and "within the seed-to-seed band on the forget set" in found.sentence
    assert "itself retrained" in headline(measured, "retrained").sentence
    page = read(html(both, replace(FULL, published="repaired"))).text
    assert "Verdict The repaired model" in re.sub(r"Verdict(?=The)", "Verdict ", page)


def test_the_band_has_a_row_and_marks_what_is_within(measured):  # noqa: F811
    banded = {**measured, "band": dict.fromkeys(measured["unlearned"], 0.0) | {"models": 2, "kl_test": 1e9}}
    page = html(banded)
    assert "seed-to-seed band" in read(page).text and page.count('class="in"') >= 1
    assert (
        "rests on 2 retrainings" in read(page).text
        and "can't say what two retrainings differ by" not in read(page).text
    )
    assert "can't say what two retrainings differ by" in read(html(measured)).text


def test_an_audit_is_shown_where_there_is_one(measured):  # noqa: F811
    audit = audit_of(AUDIT)
    assert audit.sets["random"].attacked.keys() == {"original", "settled"}
    page = read(html(measured, audit=audit)).text
    for wanted in ("Can't be told apart.", "0.830", "0.470 – 0.550", "KLoM of up to 0.900", "32 models a side"):
        assert wanted in page, wanted
    assert "0.470 to 0.550" in render_markdown(measured, FULL, audit)
    assert "ulira" in draw_figures(measured, audit=audit) and "ulira" not in draw_figures(measured)
    again = audit_from_json(json.loads(json.dumps(facts_to_json_of(audit))))
    assert again == audit
    with pytest.raises(DamagedStore, match="lacks 'verdict': run `amnesiac audit` again"):
        audit_of({})
    with pytest.raises(DamagedStore, match="report's audit can't be read at models"):
        audit_from_json(facts_to_json_of(audit) | {"models": "many"})


def facts_to_json_of(audit):
    from dataclasses import asdict

    return asdict(audit)


def test_facts_survive_json():
    assert facts_from_json(json.loads(json.dumps(facts_to_json(FULL)))) == FULL
    assert facts_from_json(json.loads(json.dumps(facts_to_json(FACTS)))) == FACTS
    with pytest.raises(DamagedStore, match=r"can't be read at batch\.number: restore pipeline_data/reports"):
        facts_from_json(facts_to_json(FULL) | {"batch": {"number": "seven", "asked": (), "states": {}}})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({"train": 20.0, "seal": 7.0, "retrain": 9.0, "unlearn": 1.0}, "17.0 s beyond .* from deletion batch 3 on"),
        ({"train": 5.0, "retrain": 9.0, "unlearn": 1.0}, "about 0 ms beyond .* pays from deletion batch 1 on"),
        ({"train": 20.0, "retrain": 1.0, "unlearn": 2.0}, "saves no time against retraining here"),
        ({"train": 20.0, "unlearn": 2.0}, "^$"),
    ],
)  # fmt: skip
def test_from_when_on_capturing_has_paid(seconds, said):
    # 90 retained of 100: plain training is taken to be 10 s where retraining took 9
    assert re.search(said, cost_sentence(seconds, {"retain": 90, "forget": 10}))


def test_sizes():
    assert [size(n) for n in (0, 999, 1000, 14_500_000, 2 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "14.5 MB",
        "2 TB",
    ]
