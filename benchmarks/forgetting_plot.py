"""KL on the forget set by case and method, with the band in which two retrainings differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amnesiac.durable import write_bytes
from amnesiac.errors import InputError
from amnesiac.evaluation import to_png, to_svg

Rows = Sequence[Mapping[str, Any]]
# Colours of Okabe and Ito, and a marker each, so that neither alone carries the meaning
STYLES = {
    ("original", False): ("#999999", "s", "original (nothing done)"),
    ("plain", False): ("#d55e00", "v", "plain subtraction"),
    ("raw_lr", False): ("#e69f00", "^", "raw gradients x lr"),
    ("settled", False): ("#0072b2", "o", "settled"),
    ("settled", True): ("#cc79a7", "D", "settled, 1/4 epoch of repair"),
}
BAND, FLOOR = "retrained_other_seed", 1e-6
STYLE: dict[Any, Any] = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


def write_plot(path: Path, rows: Rows) -> None:
    """Draw and write, as PNG or SVG by the suffix; raises InputError for another one, before anything is drawn."""
    check_suffix(path)
    figure = draw(rows)
    write_bytes(path, to_png(figure) if path.suffix == ".png" else to_svg(figure).encode())


def check_suffix(path: Path) -> None:
    """Raise InputError unless a plot can be written to a file of this name."""
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"--plot {path}: the file's name must end in .png or .svg")


def draw(rows: Rows) -> Figure:
    """A panel a case; a column a config; a small mark a seed, a large one for their mean; logarithmic."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 + 2.2 * len(cases), 4.2), layout="constrained")
        panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
        for axes, case in zip(panels, cases, strict=True):
            _panel(axes, [row for row in rows if row["case"] == case])
            axes.set_title(case, fontsize=9.0)
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panels[0].set_ylabel("KL(retrained || model) on the forget set, nats")
        handles: dict[str, Any] = {}
        for axes in panels:
            lines, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, lines, strict=True))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _panel(axes: Axes, rows: Rows) -> None:
    columns = list(dict.fromkeys((row["dataset"], row["model"], row["optimizer"]) for row in rows))
    for x, column in enumerate(columns):
        own = [row for row in rows if (row["dataset"], row["model"], row["optimizer"]) == column]
        _band(axes, x, [row for row in own if row["method"] == BAND])
        for k, ((method, repaired), style) in enumerate(STYLES.items()):
            values = _values([row for row in own if (row["method"], row["repaired"]) == (method, repaired)])
            _marks(axes, x + 0.14 * (k - 2), values, *style)
    several = len({dataset for dataset, _, _ in columns}) > 1
    names = [f"{model}\n{optimizer}" + (f"\n{dataset}" if several else "") for dataset, model, optimizer in columns]
    axes.set_xticks(range(len(columns)), names, fontsize=7.5)
    axes.set(yscale="log", xlim=(-0.6, len(columns) - 0.4))
    axes.grid(axis="y", alpha=0.2)


def _band(axes: Axes, x: float, rows: Rows) -> None:
    """From the smallest to the largest difference of two retrainings; a line where there is one seed."""
    if values := _values(rows):
        axes.fill_between([x - 0.42, x + 0.42], min(values), max(values), color="#009e73", alpha=0.25, linewidth=0)
        axes.hlines(mean(values), x - 0.42, x + 0.42, color="#009e73", linewidth=1.2, label="retrained, another seed")


def _marks(axes: Axes, x: float, values: Sequence[float], colour: str, marker: str, label: str) -> None:
    if values:
        axes.plot([x] * len(values), values, marker, color=colour, markersize=2.5, alpha=0.5)
        axes.plot([x], [mean(values)], marker, color=colour, markersize=6, label=label)


def _values(rows: Rows) -> list[float]:
    """KL on the forget set where it is finite; a logarithmic axis has no 0."""
    return [max(row["kl_forget"], FLOOR) for row in rows if row["kl_forget"] is not None]
