"""An audit as figures: ROC curves on logarithmic axes, and KLoM's quantiles beside the null band."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from amnesiac.auditing.reading import HELD_OUT, REFERENCE
from amnesiac.evaluation.plots import STYLE

# Colours of Okabe and Ito, and a dash pattern each, so that neither alone carries the meaning
STYLES: Mapping[str, tuple[str, Any]] = {
    "original": ("#999999", "--"),
    "settled": ("#0072b2", "-"),
    "per-sample-delta": ("#d55e00", ":"),
    HELD_OUT: ("#e69f00", "-."),
}
OTHERS = (("#cc79a7", (0, (5, 1))), ("#009e73", (0, (3, 1, 1, 1))), ("#56b4e9", (0, (1, 1))))
NAMES = {
    HELD_OUT: "held-out retraining",
    "original": "original (nothing done)",
    "per-sample-delta": "plain subtraction",
}
Sets = Mapping[str, Mapping[str, Any]]


def draw_audit(sets: Sets) -> dict[str, Figure]:
    """Figures by name: "roc" and "klom", a panel a forget set."""
    return {"roc": roc_figure(sets), "klom": klom_figure(sets)}


def roc_figure(sets: Sets) -> Figure:
    """U-LiRA's curves; guessing is the thin line. Logarithmic, since low false positive rates are what matters."""

    def panel(axes: Axes, figures: Mapping[str, Any]) -> None:
        axes.plot([1e-4, 1], [1e-4, 1], color="#808080", linewidth=0.7)
        for k, (name, own) in enumerate(_models(figures)):
            colour, dash = _style(name, k)
            curve, area = own["ulira"]["curve"], own["ulira"]["auc"]
            axes.plot(curve["fpr"], curve["tpr"], color=colour, linestyle=dash, label=NAMES.get(name, name))
            at: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "fontsize": 8}
            axes.text(0.98, 0.03 + 0.07 * k, f"AUC {area:.3f}", color=colour, **at)
        axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1.05), xlabel="false positive rate")
        for axis in (axes.xaxis, axes.yaxis):  # plain numbers: formulas are not drawn (evaluation.plots)
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())

    return _panels(sets, panel, "true positive rate")


def klom_figure(sets: Sets) -> Figure:
    """KLoM's quantiles over the forgotten samples; grey: what retrained against retrained models span."""

    def panel(axes: Axes, figures: Mapping[str, Any]) -> None:
        band = figures["null_band"]
        levels = [float(level) for level in band["low"]]
        axes.fill_between(levels, list(band["low"].values()), list(band["high"].values()), color="#808080", alpha=0.3)
        for k, (name, own) in enumerate(_models(figures)):
            colour, dash = _style(name, k)
            axes.plot(
                levels, list(own["klom_forget"].values()), color=colour, linestyle=dash, label=NAMES.get(name, name)
            )
        axes.set(xlabel="quantile over samples")

    figure = _panels(sets, panel, "KLoM, nats")
    figure.axes[0].set_ylim(bottom=0)  # shared, and the upper end is that of the largest line
    return figure


def curve_rows(sets: Sets) -> list[dict[str, str | float]]:
    """The ROC curves as rows of a CSV file: set, model, fpr, tpr."""
    return [
        {"set": place, "model": name, "fpr": fpr, "tpr": tpr}
        for place, figures in sets.items()
        for name, own in _models(figures)
        for fpr, tpr in zip(own["ulira"]["curve"]["fpr"], own["ulira"]["curve"]["tpr"], strict=True)
    ]


def klom_rows(sets: Sets) -> list[dict[str, str | float]]:
    """KLoM's quantiles as rows of a CSV file: set, model, quantile, klom; the null band has a line for each end."""
    found: list[dict[str, str | float]] = []
    for place, figures in sets.items():
        lines = {name: own["klom_forget"] for name, own in _models(figures)}
        lines |= {f"null band {end}": figures["null_band"][end] for end in ("low", "high")}
        for name, values in lines.items():
            found += [{"set": place, "model": name, "quantile": float(q), "klom": v} for q, v in values.items()]
    return found


def _panels(sets: Sets, panel: Any, ylabel: str) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.8, 1.2 + 2.7 * len(sets)), 3.6), layout="constrained")
        row = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
        for axes, (name, figures) in zip(row, sets.items(), strict=True):
            panel(axes, figures)
            axes.set_title(name, fontsize=9.0)
        row[0].set_ylabel(ylabel)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2 if len(sets) == 1 else 4, frameon=False)
    return figure


def _models(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, own) for name, own in figures["models"].items() if name != REFERENCE]


def _style(name: str, k: int) -> tuple[str, Any]:
    return STYLES.get(name, OTHERS[k % len(OTHERS)])
