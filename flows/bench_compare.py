"""`amnesiac bench compare`: the methods people would pick instead, beside settled deltas."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import typer

from flows.bench import core_errors, progress_of, shared_data, wide_console
from flows.bench_figures import bench

__all__ = ["bench"]

COLUMNS = {
    "forget_accuracy": "acc. F", "test_accuracy": "test", "tow": "ToW", "kl_forget": "KL F", "kl_test": "KL test",
    "margin_forget": "margin F", "klom_forget": "KLoM F", "ulira_auc": "U-LiRA", "ulira_tpr_at_1_fpr": "TPR@1%",
    "relearn_ratio": "relearn", "seconds": "CPU s",
}  # fmt: skip


@bench.command()
def compare(
    profile: Annotated[
        Literal["quick", "full"],
        typer.Option(help="quick: MLP on MNIST-5k, minutes; full: also without momentum, Adam, and a CNN, hours."),
    ] = "quick",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A config or case; repeatable.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the scatter plot: .png or .svg.")] = None,
    table: Annotated[Path | None, typer.Option(help="Write the table for a document: Markdown.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps each run's rows: a killed run goes on.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = 2,
    data_root: Annotated[
        Path | None, typer.Option(envvar="AMNESIAC_DATA_ROOT", help="Published data; default: ../shared/datasets.")
    ] = None,
) -> None:
    """Forget with twelve published methods too, and compare. Example: [bold]amnesiac bench compare --json[/]"""
    with core_errors():
        from benchmarks.compare import PROFILES, Options, benchmark
        from benchmarks.compare_plot import check_suffix, write_plot
        from benchmarks.compare_table import markdown

        if plot:
            check_suffix(plot)
        with progress_of("compare") as on_job:
            options = Options(tuple(only or ()), (), data_root or shared_data(), cache, workers)
            result = benchmark(PROFILES[profile], options, on_job)
        if plot:
            write_plot(plot, result)
        if table:
            table.write_text(markdown(result))
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print(result)
    if check and not all(target["met"] for target in result["targets"]):
        raise typer.Exit(1)


def _print(result: Mapping[str, Any]) -> None:
    """A table a config and case, the summary's sentences, the targets, what it cost."""
    from benchmarks.compare_summary import sentences

    console = wide_console()
    for config, case in dict.fromkeys((row["config"], row["case"]) for row in result["rows"]):
        own = [row for row in result["rows"] if (row["config"], row["case"]) == (config, case)]
        console.print(_table(f"{config}, {case}", own))
    for sentence in sentences(result["summary"]):
        console.print(sentence, highlight=False)
    met, cost = sum(target["met"] for target in result["targets"]), result["cost"]
    console.print(f"{met} of {len(result['targets'])} targets met", highlight=False)
    console.print(f"{cost['wall_seconds']:.0f} s, {cost['cpu_seconds']:.0f} s of CPU time", highlight=False)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """A line a method, means over the reported seeds; what it needs is the last column."""
    from rich.table import Table

    table = Table("method", *COLUMNS.values(), "needs", box=None, title=title)
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        needs = ", ".join(own[0]["uses"]) or "nothing"
        table.add_row(method, *(_mean([row[name] for row in own]) for name in COLUMNS), needs)
    return table


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.3g}" if known and len(known) == len(values) else "-"
