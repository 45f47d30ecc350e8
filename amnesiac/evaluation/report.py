"""The comparison as one HTML page that needs nothing else (no script, no request, styles and figures inline), and the
same as Markdown. Both are filled from the same context, so they say the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from amnesiac.evaluation.alternatives import alternatives
from amnesiac.evaluation.audit_record import AuditFacts
from amnesiac.evaluation.band import ACCURACIES, AUC, band_sentence, within
from amnesiac.evaluation.comparison import SETS, classes_in, roles_in
from amnesiac.evaluation.cost import cost_sentence, duration, ratios, size
from amnesiac.evaluation.facts import ReportFacts
from amnesiac.evaluation.verdict import LIMITS, Verdict, judge

CAPTIONS = {
    "accuracy": "Accuracy in %. On the forget set the aim is the accuracy of the retrained model.",
    "per_class_accuracy": "Test accuracy by class.",
    "kl": "KL divergence from the retrained model, whose own is 0. The original model's is what doing nothing leaves; "
    "the shaded zone reaches as far as a retraining with another seed is.",
    "attack": "The population attack: a threshold on the margin, forgotten samples against test samples of the same "
    "classes. The aim is the retrained model's curve, not the diagonal.",
    "ulira": "U-LiRA, of the last audit: shadow models tell, sample by sample, models from retrained ones.",
    "examples": "Forgotten samples, and what each model takes them for.",
}
COLUMNS = (
    *((f"{name}_accuracy", name, "percent") for name in SETS),
    ("kl_forget", "KL forget", "number"),
    ("kl_test", "KL test", "number"),
    *((f"margin_{name}", f"|Δmargin| {name}", "number") for name in SETS),
    ("relative_verification_error", "relative verification error", "number"),
    ("membership_auc", "attack AUC", "number"),
)
GROUPS = (("Accuracy, %", 3), ("Divergence from the retrained model", 6), ("Attack", 1))
BAND = "seed-to-seed band"
RETRAINED = Verdict("close", "The published model was itself retrained without the forget set.", ())


def render_report(
    metrics: Mapping[str, Any], facts: ReportFacts, figures: Mapping[str, str], audit: AuditFacts | None = None
) -> str:
    """The report as HTML, for what `compare` returned.

    `figures` holds SVG elements by name, as `to_svg` makes them: the only text that isn't escaped here (matplotlib
    escapes what it writes). The same arguments give the same bytes; no date, no path, no id is added.
    """
    return _filled("report.html", metrics, facts, audit, figures=_captioned(metrics, figures))


def render_markdown(metrics: Mapping[str, Any], facts: ReportFacts, audit: AuditFacts | None = None) -> str:
    """The same as Markdown, without figures: the per-class table takes their place."""
    return _filled("report.md", metrics, facts, audit)


def headline(metrics: Mapping[str, Any], published: str) -> Verdict:
    """The verdict on what is published, and its place beside the seed-to-seed band, in one line."""
    if published == "retrained":
        return RETRAINED
    verdict, beside = judge(metrics, published), band_sentence(metrics, published)
    sentence = f"{verdict.sentence} {beside}" if beside and verdict.level != "nothing" else verdict.sentence
    return Verdict(verdict.level, sentence, verdict.reasons)


def _filled(name: str, metrics: Mapping[str, Any], facts: ReportFacts, audit: AuditFacts | None, **more: object) -> str:
    roles = roles_in(metrics)
    return _environment(name).get_template(name).render(
        facts=facts,
        audit=audit,
        headline=headline(metrics, facts.published),
        verdicts=[(role, judge(metrics, role)) for role in ("unlearned", "repaired") if role in roles],
        limits=LIMITS,
        samples=metrics["samples"],
        groups=GROUPS,
        columns=[(label, kind) for _, label, kind in COLUMNS],
        rows=[(role, [_cell(metrics, role, key, kind) for key, _, kind in COLUMNS]) for role in roles],
        band=_band_row(metrics),
        classes=_class_table(metrics),
        roles=roles,
        timings=ratios(facts.seconds),
        cost=cost_sentence(facts.seconds, metrics["samples"]),
        **more,
    )  # fmt: skip


def _cell(metrics: Mapping[str, Any], role: str, key: str, kind: str) -> tuple[float | None, str, bool | None]:
    """Value, how to show it, and whether it lies within the band."""
    judged = role not in ("retrained", "original")
    return metrics[role].get(key), kind, within(metrics, role, key) if judged else None


def _band_row(metrics: Mapping[str, Any]) -> tuple[int, list[tuple[float | None, str]]] | None:
    """How many other seeds there are, and the width of the band by column."""
    found = metrics.get("band")
    if found is None:
        return None
    kinds = ["difference" if key == AUC else "points" if key in ACCURACIES else kind for key, _, kind in COLUMNS]
    return found["models"] - 1, [(found.get(key), kind) for (key, _, _), kind in zip(COLUMNS, kinds, strict=True)]


def _captioned(metrics: Mapping[str, Any], figures: Mapping[str, str]) -> list[tuple[Markup, str]]:
    said = alternatives(metrics)
    shown = []
    for name, svg in figures.items():
        label = f'<svg role="img" aria-label="{escape(said.get(name, name))}" '
        shown.append((Markup(svg.replace("<svg ", label, 1)), CAPTIONS.get(name, name)))  # noqa: S704 (see above)
    return shown


def _environment(name: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("amnesiac", "evaluation"),
        autoescape=name.endswith(".html"),
        finalize=_plain if name.endswith(".md") else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, points=_points, number=_number, duration=duration, size=size, shown=_shown, moment=_moment
    )
    return environment


def _plain(value: object) -> object:
    """Text of Markdown in one line, nothing of which is taken for markup or for the end of a table's cell."""
    text = str(value).replace("\n", " ").replace("\r", " ")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in text)


def _class_table(metrics: Mapping[str, Any]) -> Sequence[tuple[str, list[float | None]]]:
    accuracies = [metrics[role]["per_class_test_accuracy"] for role in roles_in(metrics)]
    return [(name, [of_role[name] for of_role in accuracies]) for name in classes_in(metrics)]


def _shown(value: float | None, kind: str) -> str:
    return {"percent": _percent, "points": _points, "number": _number, "difference": _difference}[kind](value)


def _moment(value: str) -> str:
    """2026-11-23T19:59:29Z as 2026-11-23 19:59."""
    return value[:16].replace("T", " ")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"±{100 * value:.1f}"


def _difference(value: float | None) -> str:
    return "–" if value is None else f"±{value:.3f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:#.3g}" if abs(value) < 1000 else f"{value:.3g}"
