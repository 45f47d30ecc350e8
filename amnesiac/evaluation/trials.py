"""Trial deletions side by side: what each did, what retraining does, what had been predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from amnesiac.evaluation.plots import COLOURS, STYLE
from amnesiac.unlearning import Confidence

Row = dict[str, Any]
_MODELS = ("original", "unlearned", "retrained")


def trial_row(label: str, metrics: Mapping[str, Any], said: Confidence | None, seconds: Mapping[str, float]) -> Row:
    """One trial's figures from `compare`'s metrics, flat, as JSON and CSV hold them.

    kl_forget_*: KL in nats to the retrained model on the trial's samples;  seed_*: of a retraining with another seed
    """
    band = metrics.get("band", {})
    row: Row = {"trial": label, "samples": metrics["samples"]["forget"]}
    for model in _MODELS:
        row |= {f"{name}_accuracy_{model}": metrics[model][f"{name}_accuracy"] for name in ("forget", "test")}
    for model in ("original", "unlearned"):
        row |= {f"kl_{name}_{model}": metrics[model][f"kl_{name}"] for name in ("forget", "test")}
    row |= {f"seed_kl_{name}": band.get(f"kl_{name}") for name in ("forget", "test")}
    row |= {"predicted_kl": said.predicted_kl if said else None, "verdict": said.verdict if said else None}
    return row | {f"{name}_seconds": value for name, value in seconds.items()}


def trials_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """One line a trial, as text: what the dashboard and the terminal show."""
    return [
        {
            "trial": row["trial"],
            "samples": f"{row['samples']:,}",
            "forget % (retrained)": _pair(row, "forget_accuracy"),
            "test % (retrained)": _pair(row, "test_accuracy"),
            "KL forget": _number(row["kl_forget_unlearned"]),
            "untouched": _number(row["kl_forget_original"]),
            "other seed": _number(row["seed_kl_forget"]),
            "verdict": row["verdict"] or "–",
        }
        for row in rows
    ]


def trials_figure(rows: Sequence[Row]) -> Figure:
    """Dots of the KL from the retrained model on each trial's samples: untouched, unlearned, another seed."""
    drawn = {
        "untouched": ("kl_forget_original", COLOURS["original"], "o"),
        "unlearned": ("kl_forget_unlearned", COLOURS["unlearned"], "o"),
        "retrained, another seed": ("seed_kl_forget", COLOURS["retrained"], "|"),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.4 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for label, (name, colour, marker) in drawn.items():
            found = [(row[name], row["trial"]) for row in rows if row[name] is not None]
            if found:
                axes.plot(*zip(*found, strict=True), marker, color=colour, label=label, markersize=9)
        axes.set(xlabel="KL on the trial's samples from the model retrained without them, nats", xscale="symlog")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=3, frameon=False)
    return figure


def _pair(row: Row, name: str) -> str:
    return f"{100 * row[f'{name}_unlearned']:.1f} ({100 * row[f'{name}_retrained']:.1f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
