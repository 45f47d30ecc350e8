"""The paper's published numbers, and the tables that `table1.py` prints (Markdown)."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

# Marincione 2024, MNIST, small CNN, class 3: forgotten-class / rest accuracy after training, without retraining, and
# after 4 epochs of retraining. One run, without a retrained reference. Rows that it doesn't have are not invented.
PUBLISHED: Mapping[str, tuple[str, str, str]] = {
    "subset-one-0.1": (".60/.98", ".00/.83", ".04/.98"),
    "subset-one-0.05": (".60/.98", ".06/.96", ".04/.98"),
    "updates": (".67/.98", ".00/.83", ".00/.98"),
    "updates-partial": (".56/.98", ".07/.98", ".02/.98"),
}
# An earlier re-run of the paper's setting with the right sample's gradients (the paper's code pairs the wrong one)
RERUN: Mapping[str, str] = {"subset-lr-1": ".224/.979", "retrained": ".000/.982"}
MISSING = "n/a"


def tables(name: str, summary: str, runs: Sequence[Mapping[str, Any]], published: bool) -> str:
    """All tables of one setting; the mean where there is more than one seed.

    published: whether the setting is the paper's, so that its numbers may stand beside ours
    """
    parts = [
        f"## Setting `{name}`: {summary}",
        _facts(runs),
        "Accuracy on test samples of the forgotten class / of the other classes"
        + (". P: the paper, published; R: the corrected re-run (see the header of table1.py)" if published else ""),
        _accuracies(runs, published),
        "On the forgotten training samples: accuracy; KL(retrained || model) there; KL on the test set",
        _divergences(runs),
        "Cost, CPU seconds (wall clock)",
        _costs(runs),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(runs: Sequence[Mapping[str, Any]]) -> str:
    n, size = runs[0]["samples"], runs[0]["bytes"]
    seconds = {name: _seconds([run["seconds"][name] for run in runs]) for name in runs[0]["seconds"]}
    same = "the same bits" if all(run["same_bits_as_plain_training"] for run in runs) else "OTHER BITS"
    return (
        f"n = {len(runs)} run(s), seed(s) {', '.join(str(run['seed']) for run in runs)}. "
        f"{n['train']} training samples, {n['forget']} of them forgotten; tested on {n['test_forget']} samples of the "
        f"class, {n['test_rest']} of the others.\n\n"
        f"CPU seconds (wall clock): training plain {seconds['training_plain']}, with capture for all methods at once "
        f"{seconds['training_with_capture']}, weights {same}; sealing all ledgers {seconds['seal']}; retraining "
        f"{seconds['retraining']}. Disk: spool {size['spool'] / 1e9:.2f} GB, ledgers {size['ledger'] / 1e9:.2f} GB."
    )


def _accuracies(runs: Sequence[Mapping[str, Any]], published: bool) -> str:
    steps = _repairs(runs)
    paper = ["P after training", "P no repair", "P 4 epochs", "R no repair"] if published else []
    lines = [["method", *(_step_name(step) for step in steps), *paper]]
    for key, label in _keys(runs):
        own = [_cell(_of(runs, key, step), _accuracy_pair) for step in steps]
        theirs = [*PUBLISHED.get(key, (MISSING,) * 3), RERUN.get(key, MISSING)] if published else []
        lines.append([label, *own, *theirs])
    return _markdown(lines)


def _divergences(runs: Sequence[Mapping[str, Any]]) -> str:
    steps = _repairs(runs)
    lines = [["method", *(_step_name(step) for step in steps)]]
    lines += [[label, *(_cell(_of(runs, key, step), _divergence) for step in steps)] for key, label in _keys(runs)]
    return _markdown(lines)


def _costs(runs: Sequence[Mapping[str, Any]]) -> str:
    steps = _repairs(runs)
    repairs = [f"repair, {_step_name(step)}" for step in steps[1:]]
    lines = [["method", "bytes a sample", "rows added", "deletion", *repairs]]
    for key, label in _keys(runs):
        own = _row(runs[0], key)
        if "bytes_per_sample" in own:
            seconds = [_seconds([_row(run, key)["repairs"][step]["seconds"] for run in runs]) for step in steps]
            lines.append([label, f"{own['bytes_per_sample']:,.0f}", str(own["rows_added"]), *seconds])
    return _markdown(lines)


def _keys(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(row["key"], row["label"]) for row in runs[0]["rows"]]


def _repairs(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The repairs of the run, none first."""
    return list(runs[0]["rows"][0]["repairs"])


def _row(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return next(row for row in run["rows"] if row["key"] == key)


def _of(runs: Sequence[Mapping[str, Any]], key: str, step: str) -> dict[str, float]:
    """Means over the runs; empty where the row has no such repair (the retrained model isn't repaired)."""
    found = [_row(run, key)["repairs"].get(step) for run in runs]
    return _means([one for one in found if one is not None])


def _means(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in records[0] if name != "seconds"] if records else []
    return {name: mean(record[name] for record in records) for name in names}


def _seconds(spent: Sequence[Mapping[str, float]]) -> str:
    return f"{mean(one['cpu'] for one in spent):.1f} ({mean(one['wall'] for one in spent):.1f})"


def _cell(values: Mapping[str, float], form: Any) -> str:
    return form(values) if values else ""


def _accuracy_pair(values: Mapping[str, float]) -> str:
    return f"{_short(values['forget_test_accuracy'])}/{_short(values['rest_test_accuracy'])}"


def _divergence(values: Mapping[str, float]) -> str:
    return f"{_short(values['forget_train_accuracy'])}; {values['kl_forget']:.3g}; {values['kl_test']:.3g}"


def _short(value: float) -> str:
    """.987 as papers write it."""
    return f"{value:.3f}".removeprefix("0")


def _step_name(step: str) -> str:
    return {"0": "no repair", "1": "1 epoch"}.get(step, f"{step} epochs")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *texts[1:]])
