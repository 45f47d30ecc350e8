"""The comparison's table for a document: Markdown, a line a case and method."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.compare_ensembles import REFERENCE, RETRAINED, uses_of, uses_retain_data
from benchmarks.compare_summary import FIGURES, OURS

NAMES = {REFERENCE: "retrained, other seed", RETRAINED: "retrained (0 by definition)", "original": "nothing done"}
ENSEMBLE = ("klom_forget", "ulira_auc", "ulira_tpr_at_1_fpr")
HEADINGS = (
    "method", "needs", "KL F", "KL test", "margin F", "margin test", "KLoM F", "U-LiRA AUC", "TPR at 1 % FPR", "ToW",
    "relearn", "time / retraining",
)  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """A table a config and case: KL and margins are means over all members, ToW and relearn over the reported seeds;
    nearest first among those that need no retained data, then among those that do.
    """
    lines = [line for line in result["summary"] if line["figure"] == "kl_forget"]
    return "\n".join(_table(result, line["config"], line["case"]) for line in lines)


def _table(result: Mapping[str, Any], config: str, case: str) -> str:
    own = [row for row in result["rows"] if (row["config"], row["case"]) == (config, case)]
    means = {
        line["figure"]: line["means"]
        for line in result["summary"]
        if (line["config"], line["case"]) == (config, case)
    }  # fmt: skip
    members = own[0]["members"]
    title = f"**{config}, {case}** (n = {members} models)\n\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}\n"
    order = sorted(means["kl_forget"], key=lambda method: (_group(method), _large(means["kl_forget"][method])))
    return title + "".join(_line(method, own, means) for method in order)


def _line(method: str, rows: Sequence[Mapping[str, Any]], means: Mapping[str, Mapping[str, float | None]]) -> str:
    own = [row for row in rows if row["method"] == method]
    seconds = mean([row["seconds"] for row in rows if row["method"] == RETRAINED])
    cells = [_short(means[name][method]) for name in FIGURES] + [_short(own[0][name]) for name in ENSEMBLE]
    cells[5] += f" ({_short(own[0]['ulira_auc_low'])}–{_short(own[0]['ulira_auc_high'])})"
    cells += [_short(_mean([row[name] for row in own])) for name in ("tow", "relearn_ratio")]
    cells.append(_short(mean([row["seconds"] for row in own]) / seconds))
    name = f"**{method}**" if method == OURS else NAMES.get(method, method)
    return f"| {' | '.join([name, ', '.join(uses_of(method)) or 'nothing', *cells])} |\n"


def _group(method: str) -> int:
    """Retraining last."""
    return 2 if method in (RETRAINED, REFERENCE) else int(uses_retain_data(method))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _large(value: float | None) -> float:
    return float("inf") if value is None else value


def _short(value: float | None) -> str:
    """Three digits, no zero before the point; a dash where there is no (finite) number."""
    if value is None:
        return "–"
    text = (
        f"{value:,.0f}"
        if abs(value) >= 1000
        else f"{value:.3g}"
        if abs(value) >= 0.001 or value == 0
        else f"{value:.1e}"
    )
    return text.removeprefix("0") if text.startswith("0.") else text
