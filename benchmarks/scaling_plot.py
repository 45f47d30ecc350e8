"""CPU seconds over samples held and over parameters, in logarithms, with the fitted exponent of each line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from amnesiac.durable import write_bytes
from amnesiac.evaluation import to_png, to_svg
from benchmarks.forgetting_plot import STYLE, check_suffix
from benchmarks.scaling import OVER, slope

__all__ = ["check_suffix", "draw", "write_plot"]

Rows = Sequence[Mapping[str, Any]]
# Colours of Okabe and Ito, and a marker each, so that neither alone carries the meaning
LINES = {
    ("delete", 1): ("#0072b2", "o", "delete 1"),
    ("delete", 100): ("#56b4e9", "s", "delete 100"),
    ("delete", 1000): ("#009e73", "^", "delete 1,000"),
    ("erase", 100): ("#d55e00", "v", "destroy 100 keys"),
    ("write", 0): ("#999999", "D", "write all"),
}
TITLES = {"over N": "samples held", "over P": "parameters"}


def write_plot(path: Path, rows: Rows) -> None:
    """Draw and write, as PNG or SVG by the suffix; raises InputError for another one, before anything is drawn."""
    check_suffix(path)
    figure = draw(rows)
    write_bytes(path, to_png(figure) if path.suffix == ".png" else to_svg(figure).encode())


def draw(rows: Rows) -> Figure:
    """A panel for what grows (N, P), a line for what is measured."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.4), layout="constrained")
        for axes, variant in zip(figure.subplots(1, 2, sharey=True), OVER, strict=True):
            _panel(axes, [row for row in rows if row["variant"] == variant], OVER[variant])
            axes.set_xlabel(TITLES[variant])
            if axes.get_lines():
                axes.legend(frameon=False, fontsize=8.0, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        figure.axes[0].set_ylabel("CPU seconds")
    return figure


def _panel(axes: Axes, rows: Rows, over: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    for (what, deleted), (colour, marker, label) in LINES.items():
        points = [(row[over], row["cpu_seconds"]) for row in rows if (row["what"], row["deleted"]) == (what, deleted)]
        if points:
            fitted = f", exponent {round(slope(points), 2) + 0.0:.2f}" if len(points) > 2 else ""
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label + fitted)
