"""Fidelity against time against the data that a method needs: a panel a case, a row of panels a config."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from amnesiac.durable import write_bytes
from amnesiac.evaluation import to_png, to_svg
from benchmarks.compare_ensembles import REFERENCE, RETRAINED, uses_of, uses_retain_data
from benchmarks.compare_summary import OURS
from benchmarks.forgetting_plot import STYLE, check_suffix

__all__ = ["check_suffix", "draw", "write_plot"]

# Colours of Okabe and Ito, and a marker each, so that neither alone carries the meaning
KINDS = {
    "ledger": ("#0072b2", "o", "the ledger's rows, no sample at all"),
    "forget": ("#e69f00", "^", "the forgotten samples (and what was kept in training)"),
    "retain": ("#7f7f7f", "s", "retained samples too"),
}
SPREAD, NOTHING = "#009e73", "#b0b0b0"
FASTEST, FLOOR = 1e-4, 1e-5
GAP = 0.055
"""Least distance of two labels, share of the axis' height."""
QUICK = 0.035
"""Share of retraining's time below which a method's name is on the left."""


@dataclass(frozen=True)
class Point:
    """share: CPU time over retraining's;  kl: mean over members, floored for a logarithmic axis."""

    method: str
    share: float
    kl: float


def write_plot(path: Path, result: Mapping[str, Any]) -> None:
    """Draw and write, as PNG or SVG by the suffix; raises InputError for another one, before anything is drawn."""
    check_suffix(path)
    figure = draw(result)
    write_bytes(path, to_png(figure) if path.suffix == ".png" else to_svg(figure).encode())


def draw(result: Mapping[str, Any]) -> Figure:
    """KL on the forget set over the share of retraining's time; both logarithmic."""
    lines = [line for line in result["summary"] if line["figure"] == "kl_forget"]
    configs, cases = (list(dict.fromkeys(line[name] for line in lines)) for name in ("config", "case"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.0 + 4.1 * len(cases), 1.1 + 4.0 * len(configs)), layout="constrained")
        panels = figure.subplots(len(configs), len(cases), squeeze=False)
        for line in lines:
            axes = panels[configs.index(line["config"])][cases.index(line["case"])]
            _panel(axes, line, points(result["rows"], line))
            axes.set_title(line["case"] if len(configs) == 1 else f"{line['config']}, {line['case']}", fontsize=10)
        for row in panels:
            row[0].set_ylabel("KL(retrained || model) on the forget set, nats")
        for axes in panels[-1]:
            axes.set_xlabel("CPU time of a deletion / of retraining")
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def points(rows: Sequence[Mapping[str, Any]], line: Mapping[str, Any]) -> list[Point]:
    """Every method of a line of the summary that takes time and stayed finite; `rows` give the times."""
    own = [row for row in rows if row["case"] == line["case"] and row["config"] == line["config"]]
    seconds = {m: mean([row["seconds"] for row in own if row["method"] == m]) for m in {r["method"] for r in own}}
    chosen = [m for m, kl in line["means"].items() if m not in (RETRAINED, REFERENCE, "original") and kl is not None]
    found = [(m, max(FASTEST, seconds[m] / seconds[RETRAINED]), max(FLOOR, line["means"][m])) for m in chosen]
    return [Point(*values) for values in found]


def kind_of(method: str) -> str:
    """Which data a method needs: a key of KINDS."""
    if uses_retain_data(method):
        return "retain"
    return "ledger" if uses_of(method) == ("ledger",) else "forget"


def _panel(axes: Axes, line: Mapping[str, Any], found: Sequence[Point]) -> None:
    axes.set(xscale="log", yscale="log")
    spread, nothing = line["spread"], line["means"]["original"]
    axes.axhspan(FLOOR, spread, color=SPREAD, alpha=0.08, linewidth=0)
    axes.axhline(spread, color=SPREAD, linewidth=1.0)
    axes.plot([1.0], [spread], "*", color=SPREAD, markersize=11)
    axes.axhline(nothing, color=NOTHING, linewidth=1.0, linestyle=(0, (4, 3)))
    for point in found:
        colour, marker, _ = KINDS[kind_of(point.method)]
        size = 11 if point.method == OURS else 6
        axes.plot([point.share], [point.kl], marker, color=colour, markersize=size, markeredgecolor="white", zorder=3)
    values = [spread, nothing, *(point.kl for point in found)]
    axes.set_ylim(min(values) / 2, max(values) * 2)
    axes.set_xlim(min(point.share for point in found) / 12, 40.0)
    axes.set_xticks([0.001, 0.01, 0.1, 1.0])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.15)
    _labels(axes, found)


def _labels(axes: Axes, found: Sequence[Point]) -> None:
    """Names in a column on either side, quick methods on the left, each with a thin line to its point."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    for left in (True, False):
        own = sorted((p for p in found if (p.share < QUICK) == left), key=lambda p: p.kl)
        places = apart([(math.log10(p.kl) - low) / (high - low) for p in own], GAP)
        for point, place in zip(own, places, strict=True):
            axes.annotate(
                point.method, (point.share, point.kl), (0.015 if left else 0.985, place), textcoords="axes fraction",
                fontsize=8, va="center", ha="left" if left else "right", color=KINDS[kind_of(point.method)][0],
                fontweight="bold" if point.method == OURS else "normal",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
                arrowprops={"arrowstyle": "-", "color": "#c8c8c8", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
            )  # fmt: skip


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places in [0, 1] moved as little as need be until neighbours are `gap` apart."""
    moved = list(places)
    for _ in range(500):
        for k in range(len(moved) - 1):
            lack = gap - (moved[k + 1] - moved[k])
            if lack > 0:
                moved[k], moved[k + 1] = moved[k] - lack / 2, moved[k + 1] + lack / 2
        moved = [min(max(place, gap / 2), 1 - gap / 2) for place in moved]
    return moved


def _legend() -> list[Line2D]:
    marks = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=f"needs {text}")
        for colour, marker, text in KINDS.values()
    ]
    star = Line2D([], [], color=SPREAD, marker="*", markersize=10, label="retrained with another seed: the spread")
    return [*marks, star, Line2D([], [], color=NOTHING, linestyle=(0, (4, 3)), label="nothing done")]
