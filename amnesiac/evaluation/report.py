"""The comparison as one HTML page that needs nothing else: no script, no request, styles and figures inline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from amnesiac.evaluation.comparison import SETS, classes_in, roles_in
from amnesiac.evaluation.verdict import LIMITS, judge

CAPTIONS = {
    "accuracy": "Accuracy in %. On the forget set the aim is the accuracy of the retrained model.",
    "per_class_accuracy": "Test accuracy by class.",
    "kl": "KL divergence from the retrained model, whose own is 0. The original model's is what doing nothing leaves.",
    "examples": "Forgotten samples, and what each model takes them for.",
}
COLUMNS = (
    *((f"{name}_accuracy", name, "percent") for name in SETS),
    ("kl_forget", "KL forget", "number"),
    ("kl_test", "KL test", "number"),
    *((f"margin_{name}", f"|Δmargin| {name}", "number") for name in SETS),
    ("relative_verification_error", "relative verification error", "number"),
)
_GROUPS = (("Accuracy, %", 3), ("Divergence from the retrained model", 6))


@dataclass(frozen=True)
class ReportFacts:
    """What the report says beside the metrics: counts and opaque ids, never an id of a person."""

    requests: int
    subjects: int
    samples: int
    """Training samples that were forgotten."""
    method: str
    data: str
    model: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each step; ratios are to the step called "retrain"."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings worth stating, by name."""
    version: str = ""
    """Which published version of the model this is about, if it has a name."""
    not_held: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By request id, keyed hashes of what it named and the data doesn't hold."""


def render_report(metrics: Mapping[str, Any], facts: ReportFacts, figures: Mapping[str, str]) -> str:
    """The report as HTML, for what `compare` returned.

    `figures` holds SVG elements by name, as `to_svg` makes them: the only text that isn't escaped here (matplotlib
    escapes what it writes). The same arguments give the same bytes; no date, no path, no id is added.
    """
    template = _environment().get_template("report.html")
    return template.render(
        facts=facts,
        verdicts=[judge(metrics, role) for role in ("unlearned", "repaired") if role in metrics],
        limits=LIMITS,
        samples=metrics["samples"],
        groups=_GROUPS,
        columns=[(label, kind) for _, label, kind in COLUMNS],
        rows=[(role, [(metrics[role][key], kind) for key, _, kind in COLUMNS]) for role in roles_in(metrics)],
        classes=_class_table(metrics),
        roles=roles_in(metrics),
        figures=[(Markup(svg), CAPTIONS.get(name, name)) for name, svg in figures.items()],  # noqa: S704 (see above)
        timings=_timings(facts.seconds),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("amnesiac", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, duration=_duration)
    return environment


def _class_table(metrics: Mapping[str, Any]) -> list[tuple[str, list[float | None]]]:
    accuracies = [metrics[role]["per_class_test_accuracy"] for role in roles_in(metrics)]
    return [(name, [of_role[name] for of_role in accuracies]) for name in classes_in(metrics)]


def _timings(seconds: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Step, seconds, and how that compares with retraining."""
    retrain = seconds.get("retrain", 0.0)
    return [(step, value, _ratio(value, retrain) if step != "retrain" else "1") for step, value in seconds.items()]


def _ratio(value: float, retrain: float) -> str:
    if not retrain or not value:
        return "–"
    return f"{value / retrain:.2g}" if value > retrain / 10 else f"1/{retrain / value:.0f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:#.3g}" if abs(value) < 1000 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
