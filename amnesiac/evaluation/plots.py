"""The metrics as figures, the same bytes for the same numbers.

Matplotlib's object interface on the Agg canvas: no pyplot, so no global state and no display. Colours are those of
Okabe and Ito, told apart with any colour vision; numbers stand on the bars. Text and axes of the SVG use
`currentColor`, so that a figure inlined in a page follows its light or dark scheme.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from amnesiac.evaluation.audit_record import AuditFacts
from amnesiac.evaluation.comparison import SETS, classes_in, roles_in

COLOURS = {"original": "#999999", "unlearned": "#0072b2", "repaired": "#cc79a7", "retrained": "#e69f00"}
_AUDITED = ("#999999", "#0072b2", "#cc79a7", "#e69f00", "#009e73", "#56b4e9")
MAX_CLASSES = 20
"""With more classes than this only those that differ most are drawn; the table has them all."""

_INK = "#010203"  # becomes currentColor in an SVG
STYLE: dict[Any, Any] = {
    "font.family": [
        "DejaVu Sans",
        "sans-serif",
    ],  # the first ships with matplotlib: the layout doesn't depend on the machine's fonts
    "font.size": 10.0,
    "text.parse_math": False,  # a class may be called $a_b$
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "amnesiac",
}


@dataclass(frozen=True)
class ForgottenExample:
    """A forgotten sample and what each model takes it for. Only for public data: it shows what was to be forgotten."""

    image: torch.Tensor
    """`[c, h, w]` with c = 1 or 3, any range: it is stretched to black and white."""
    label: str
    predictions: Mapping[str, str]
    """Predicted class by role."""


def draw_figures(
    metrics: Mapping[str, Any],
    examples: Sequence[ForgottenExample] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    audit: AuditFacts | None = None,
) -> dict[str, Figure]:
    """All figures by name: "accuracy", "kl", "attack" if there are `curves` (rows of `membership_curves`), "ulira" if
    there was an audit, "per_class_accuracy" and, if there are examples, "examples".
    """
    figures = {"accuracy": accuracy_figure(metrics), "kl": kl_figure(metrics)}
    if curves:
        figures["attack"] = attack_figure(metrics, curves)
    if audit and audit.sets:
        figures["ulira"] = ulira_figure(audit)
    figures["per_class_accuracy"] = per_class_figure(metrics)
    return {**figures, "examples": examples_figure(examples)} if examples else figures


def accuracy_figure(metrics: Mapping[str, Any]) -> Figure:
    """Bars of the accuracy on forget, retain and test set for each model."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.2)
        sets = [name for name in SETS if metrics["samples"][name]]
        values = {role: [metrics[role][f"{name}_accuracy"] for name in sets] for role in roles_in(metrics)}
        _grouped_bars(axes, [f"{name} set" for name in sets], values, lambda value: f"{100 * value:.1f}")
        _accuracy_axis(axes)
        _legend(figure, axes)
    return figure


def per_class_figure(metrics: Mapping[str, Any]) -> Figure:
    """Bars of the test accuracy for each class; of the classes that differ most where there are too many."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.2)
        classes, remark = _shown_classes(metrics)
        accuracies = {role: metrics[role]["per_class_test_accuracy"] for role in roles_in(metrics)}
        values = {role: [of_class[name] for name in classes] for role, of_class in accuracies.items()}
        _grouped_bars(axes, [_short(name) for name in classes], values, None)
        if max(map(len, classes), default=0) > 3:
            axes.tick_params(axis="x", rotation=90 if len(classes) > 12 else 30)
        _accuracy_axis(axes)
        axes.set_xlabel(remark)
        _legend(figure, axes)
    return figure


def kl_figure(metrics: Mapping[str, Any]) -> Figure:
    """Bars of the KL divergence from the retrained model on forget and test set, each on its own scale, and a zone up
    to what another seed's retraining is from it, where that is known.
    """
    roles = [role for role in roles_in(metrics) if role != "retrained"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.1 + 0.5 * len(roles)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name in zip(panels, ("forget", "test"), strict=True):
            drawn = {role: metrics[role][f"kl_{name}"] for role in roles if metrics["samples"][name]}
            bars = axes.barh(list(drawn), list(drawn.values()), 0.66, color=[COLOURS[role] for role in drawn])
            axes.bar_label(bars, [f"{value:.3g}" for value in drawn.values()], padding=3)
            band = metrics.get("band", {}).get(f"kl_{name}")
            widest = 1.25 * max([*drawn.values(), band or 0.0], default=0)
            axes.set(xlabel=f"nats, {name} set", xlim=(0, widest or 1.0))
            if band is not None:
                axes.axvspan(0, band, color=COLOURS["retrained"], alpha=0.22, linewidth=0, zorder=0)
                axes.axvline(band, color=COLOURS["retrained"], linewidth=1.5, label="a retraining with another seed")
        panels[0].set_ylim(len(roles) - 0.5, -0.5)
        if panels[1].get_legend_handles_labels()[0]:
            _legend(figure, panels[1])
        for axes in panels:
            axes.tick_params(axis="y", length=0)
    return figure


def attack_figure(metrics: Mapping[str, Any], curves: Sequence[Mapping[str, Any]]) -> Figure:
    """ROC curves of the population attack, one a model; the retrained model's (dashed) is the aim."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.8)
        axes.plot([0, 1], [0, 1], color=_INK, alpha=0.3, linewidth=1, linestyle=":")
        for role in roles_in(metrics):
            line = [(row["fpr"], row["tpr"]) for row in curves if row["model"] == role]
            style = "--" if role == "retrained" else "-"
            label = f"{role}, AUC {_auc(metrics, role)}"
            axes.plot(*zip(*line, strict=True), color=COLOURS[role], linestyle=style, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="unseen samples that are taken for members")
        axes.set_ylabel("forgotten samples that are")
        axes.grid(color=_INK, alpha=0.12, linewidth=0.8)
        axes.legend(loc="lower right", frameon=False)
    return figure


def ulira_figure(audit: AuditFacts) -> Figure:
    """ROC curves of U-LiRA on logarithmic axes, a panel a forget set: on the diagonal it does no more than guess."""
    with mpl.rc_context({**STYLE, "font.size": 8.0}):
        wide = min(2, len(audit.sets))
        rows = math.ceil(len(audit.sets) / wide)
        figure = Figure(figsize=(7.2, 3.0 * rows), layout="constrained")
        panels = figure.subplots(rows, wide, squeeze=False).flatten()
        for axes, (name, one) in zip(panels, audit.sets.items(), strict=False):
            axes.plot([1e-3, 1], [1e-3, 1], color=_INK, alpha=0.3, linewidth=1, linestyle=":")
            for (kind, found), colour in zip(one.attacked.items(), _AUDITED, strict=False):
                axes.plot(found.fpr, found.tpr, color=colour, label=f"{kind}, AUC {found.auc:.3f}")
            axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1.1), title=_short(name))
            axes.set(xlabel="retrained models that are accused", ylabel="models that are found out")
            axes.legend(loc="lower right", frameon=False)
        for axes in panels[len(audit.sets) :]:
            axes.remove()
    return figure


def examples_figure(examples: Sequence[ForgottenExample]) -> Figure:
    """Forgotten samples in a row, under each its label and what every model takes it for."""
    with mpl.rc_context({**STYLE, "font.size": 8.0}):
        figure = Figure(figsize=(1.2 * len(examples) + 0.2, 1.9), layout="constrained")
        for axes, example in zip(figure.subplots(1, len(examples), squeeze=False)[0], examples, strict=True):
            axes.imshow(_picture(example.image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=_short(example.label))
            axes.set_frame_on(False)
            lines = [f"{role}: {_short(guess)}" for role, guess in example.predictions.items()]
            axes.set_xlabel("\n".join(lines))
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element, a valid SVG file and fit to be inlined in HTML."""
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Ids that nothing refers to would only clash with those of the next figure in the page.
    used = set(re.findall(r'#([\w-]+)[")]', text))
    return re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", text)


def to_png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG on white."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _grouped_bars(
    axes: Axes,
    groups: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    label: Callable[[float], str] | None,
) -> None:
    width = 0.84 / len(values)
    for k, (role, heights) in enumerate(values.items()):
        drawn = [(i, height) for i, height in enumerate(heights) if height is not None]
        places = [i + (k - (len(values) - 1) / 2) * width for i, _ in drawn]
        bars = axes.bar(places, [h for _, h in drawn], 0.92 * width, color=COLOURS[role], label=role)
        if label is not None:
            axes.bar_label(bars, [label(height) for _, height in drawn], padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)


def _accuracy_axis(axes: Axes) -> None:
    axes.set(ylim=(0, 1.06), ylabel="accuracy, %")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100"])
    axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.8)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, handlelength=1, handleheight=1)


def _shown_classes(metrics: Mapping[str, Any]) -> tuple[list[str], str]:
    """The classes to draw, in order, and what the axis says about them."""
    accuracies = [metrics[role]["per_class_test_accuracy"] for role in roles_in(metrics)]
    classes = [name for name in classes_in(metrics) if accuracies[0][name] is not None]
    if len(classes) <= MAX_CLASSES:
        return classes, "class, test set"
    spread = {name: max(a[name] for a in accuracies) - min(a[name] for a in accuracies) for name in classes}
    chosen = set(sorted(classes, key=lambda name: -spread[name])[:MAX_CLASSES])
    remark = f"the {MAX_CLASSES} of {len(classes)} classes whose accuracies differ most, test set"
    return [name for name in classes if name in chosen], remark


def _auc(metrics: Mapping[str, Any], role: str) -> str:
    value = metrics[role].get("membership_auc")
    return "–" if value is None else f"{value:.3f}"


def _short(name: str, length: int = 16) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _picture(image: torch.Tensor) -> Any:
    pixels = image.detach().float().cpu().movedim(0, -1)
    low, high = pixels.min(), pixels.max()
    return ((pixels - low) / (high - low).clamp_min(1e-12)).numpy()
