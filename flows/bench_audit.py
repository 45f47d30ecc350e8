"""`amnesiac bench audit`: the audit of settled deltas on public data, apart from any project."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def audit(
    models: Annotated[int, typer.Option(min=4, help="Models on each side.")] = 32,
    config: Annotated[str, typer.Option(help="A config of `bench forgetting` on MNIST-5k.")] = "mlp-sgd",
    sets: Annotated[list[str] | None, typer.Option("--set", help="A forget set; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Draws forget sets and the models' seeds.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps members: a killed run goes on.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = 2,
    plots: Annotated[Path | None, typer.Option(help="Folder for roc.png and klom.png.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Audit settled deltas and plain subtraction. Example: [bold]amnesiac bench audit --models 32 --check[/]"""
    from amnesiac.auditing import STRATA
    from benchmarks.audit import Options, benchmark
    from flows.bench import core_errors, progress_of

    options = Options(config, models, tuple(sets or STRATA), seed=seed, workers=workers, folder=cache)
    with core_errors(), progress_of("audit") as on_member:
        result = benchmark(options, on_member)
    if plots:
        _write_plots(plots, result["sets"])
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print(result)
    if check and not all(target["met"] for target in result["targets"]):
        raise typer.Exit(1)


def _write_plots(folder: Path, sets: dict[str, Any]) -> None:
    from amnesiac.auditing import draw_audit
    from amnesiac.durable import write_bytes
    from amnesiac.evaluation import to_png

    for name, figure in draw_audit(sets).items():
        write_bytes(folder / f"{name}.png", to_png(figure))


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("forget set", "what", "AUC", "95 %", "met", box=None)
    for one in result["targets"]:
        interval = f"{one['auc_low']:.3f} to {one['auc_high']:.3f}"
        met = "yes" if one["met"] else "[bold red]NO[/]"
        table.add_row(one["case"], one["what"], f"{one['auc']:.3f}", interval, met)
    console = Console()
    verdict = result["verdict"]
    console.print(table, verdict["sentence"], verdict["check"])
