"""`amnesiac bench kappa|rows|seal`: the figures of docs/methods.md that are about settled deltas alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.bench import bench, core_errors, progress_of, shared_data, wide_console

__all__ = ["bench"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Seeds = Annotated[list[int] | None, typer.Option(metavar="SEED", help="Instead of the default's; repeatable.")]
Only = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A config, e.g. mlp-sgd; repeatable.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps each run's rows: a killed run goes on.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")]
KAPPA = ("case", "model", "optimizer", "seed", "rule", "rule_kl", "best", "best_kl", "regret", "spread_kl")
ROWS = ("model", "format", "bytes_per_sample", "seal_seconds", "delete_ms")
SEAL = ("model", "variant", "ratio", "seconds", "low", "high", "bytes_per_sample", "peak_mb", "n")


@bench.command()
def kappa(
    as_json: Json = False, seeds: Seeds = None, only: Only = None, cache: Cache = None, workers: Workers = 2
) -> None:
    """The chosen kappa against the best of nine. Example: [bold]amnesiac bench kappa --only mlp-sgd --seeds 0[/]"""
    with core_errors(), progress_of("kappa") as on_job:
        from benchmarks.forgetting import Options
        from benchmarks.kappa import kappa_benchmark

        options = Options(tuple(only or ()), tuple(seeds or ()), shared_data(), cache, workers)
        result = kappa_benchmark(options, on_job)
    if _as_json(result, as_json):
        return
    _print(KAPPA, result["rows"], "KL on the forget set by kappa")
    for name, found in result["summary"].items():
        typer.echo(
            f"{name}: {found['n']} runs, regret {found['geometric_mean_regret']:.3g} (geometric mean), at worst "
            f"{found['largest_regret']:.3g}; within 10 % of the best {found['within_10_percent']:.0%}, or within the "
            f"spread of retraining {found['within_10_percent_or_the_spread']:.0%}"
        )


@bench.command()
def rows(
    as_json: Json = False, seeds: Seeds = None, only: Only = None, cache: Cache = None, workers: Workers = 2
) -> None:
    """Bytes, fidelity and times of the row formats. Example: [bold]amnesiac bench rows --only mlp-momentum[/]"""
    with core_errors(), progress_of("rows") as on_job:
        from benchmarks.forgetting import Options
        from benchmarks.row_formats import CASES, rows_benchmark

        options = Options(tuple(only or ()), tuple(seeds or ()), shared_data(), cache, workers)
        result = rows_benchmark(options, on_job)
    if _as_json(result, as_json):
        return
    flat = [row | {f"KL {case}": row[case]["kl_forget"] for case in CASES} for row in result["rows"]]
    _print((*ROWS, *(f"KL {case}" for case in CASES)), flat, "Formats of settled rows")


@bench.command()
def seal(
    as_json: Json = False,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; medians are reported.")] = 3,
    only: Only = None,
) -> None:
    """Capture, curvature, pilots and settling against plain training. Example: [bold]amnesiac bench seal[/]"""
    with core_errors():
        from benchmarks.forgetting import Options
        from benchmarks.sealing import sealing_benchmark

        def on_run(name: str, done: int, total: int) -> None:
            typer.echo(f"{name}: round {done} of {total}", err=True)

        result = sealing_benchmark(Options(tuple(only or ()), workers=1), repeats, on_run)
    if _as_json(result, as_json):
        return
    _print(SEAL, result["rows"], "CPU seconds, and ratio to plain training")


def _as_json(result: Mapping[str, Any], wanted: bool) -> bool:
    """Print the result if it is wanted as JSON; whether it was."""
    if wanted:
        print(json.dumps(result, indent=2, allow_nan=False))
    return wanted


def _print(names: Sequence[str], found: Sequence[Mapping[str, Any]], title: str) -> None:
    from rich.table import Table

    table = Table(*(name.replace("_", " ") for name in names), box=None, title=title)
    show: Callable[[Any], str] = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)  # noqa: E731
    for row in found:
        table.add_row(*(show(row[name]) for name in names))
    wide_console().print(table)
