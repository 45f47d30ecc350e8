"""`amnesiac bench kappa|rows|seal|capture|unlearn|scaling|start`: figures of methods.md and performance.md in docs."""

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
CAPTURE = ("model", "variant", "ratio", "low", "high", "seconds", "cpu_ratio", "bytes_per_sample", "peak_mb", "n")
UNLEARN = ("model", "variant", "samples", "deleted", "ratio", "seconds", "p99", "bytes_per_sample", "peak_mb", "n")
SCALING = (
    "what", "variant", "samples", "parameters", "deleted", "ratio", "seconds", "cpu_seconds", "bytes", "files",
    "peak_mb", "n",
)  # fmt: skip
START = ("variant", "ratio", "seconds", "cpu_seconds", "n")
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


@bench.command()
def capture(
    as_json: Json = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are reported.")] = 5,
    only: Only = None,
) -> None:
    """Training with capture against plain training, vmap and Opacus. Example: [bold]amnesiac bench capture[/]"""
    with core_errors():
        from benchmarks.capturing import capture_benchmark
        from benchmarks.forgetting import Options

        def on_round(name: str, done: int, total: int) -> None:
            typer.echo(f"{name}: round {done} of {total}", err=True)

        result = capture_benchmark(Options(tuple(only or ()), workers=1), rounds, on_round)
    if _as_json(result, as_json):
        return
    _print(CAPTURE, result["rows"], f"Wall seconds, load {result['environment']['load']:.1f} before the run")
    _print(("what", "model", "measured", "target", "met"), result["targets"], "Targets")


@bench.command("unlearn")
def unlearn_command(
    as_json: Json = False,
    sizes: Annotated[list[int] | None, typer.Option("--samples", help="Training samples; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Deletions of each kind.")] = 20,
    data_root: Annotated[
        Path | None, typer.Option(envvar="AMNESIAC_DATA_ROOT", help="Published data; default: ../shared/datasets.")
    ] = None,
) -> None:
    """Deletion latency against samples deleted and held. Example: [bold]amnesiac bench unlearn --samples 4000[/]"""
    with core_errors(), progress_of("unlearn") as on_step:
        from benchmarks.deleting import SIZES, unlearn_benchmark
        from benchmarks.forgetting import Options

        options = Options(data_root=data_root or shared_data(), workers=1)
        result = unlearn_benchmark(options, sizes or SIZES, repeats, on_step)
    if _as_json(result, as_json):
        return
    _print(UNLEARN, result["rows"], f"Wall seconds, load {result['environment']['load']:.1f} before the run")
    _print(("what", "measured", "target", "met"), result["targets"], "Targets")


@bench.command("scaling")
def scaling_command(
    as_json: Json = False,
    sizes: Annotated[list[int] | None, typer.Option("--samples", help="Instead of 10^3 to 10^6; repeatable.")] = None,
    models: Annotated[list[int] | None, typer.Option("--parameters", help="Instead of 10^5 to 10^7.")] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Deletions of each kind.")] = 20,
    folder: Annotated[Path | None, typer.Option(help="Where ledgers go; default: the temporary folder. 3 GB.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the plot: .png or .svg.")] = None,
) -> None:
    """Time, memory, bytes and files as samples and parameters grow. Example: [bold]amnesiac bench scaling --json[/]"""
    with core_errors():
        from benchmarks.scaling import MODELS, SIZES, scaling_benchmark
        from benchmarks.scaling_plot import check_suffix, write_plot

        if plot:
            check_suffix(plot)
        with progress_of("scaling") as on_step:
            result = scaling_benchmark(sizes or SIZES, models or MODELS, repeats, folder, on_step)
        if plot:
            write_plot(plot, result["rows"])
    if _as_json(result, as_json):
        return
    _print(SCALING, result["rows"], f"Seconds of the clock and of CPU, load {result['environment']['load']:.1f} before")
    slopes = [{"what": name} | own for name, own in result["exponents"].items()]
    _print(("what", "cpu_seconds", "seconds", "bytes", "files", "peak_mb"), slopes, "Exponents")
    _print(("what", "measured", "target", "met"), result["targets"], "Targets")


@bench.command("start")
def start_command(
    as_json: Json = False,
    project: Annotated[Path, typer.Option(help="A project's folder; default: this one.")] = Path(),
    rounds: Annotated[int, typer.Option(min=1, help="Medians are over these.")] = 10,
) -> None:
    """How long `amnesiac --help` and `amnesiac status` take. Example: [bold]amnesiac bench start --rounds 10[/]"""
    with core_errors(), progress_of("start") as on_round:
        from benchmarks.start import start_benchmark

        result = start_benchmark(project, rounds, on_round)
    if _as_json(result, as_json):
        return
    _print(START, result["rows"], "Seconds of the clock and of CPU")
    _print(("what", "measured", "target", "met"), result["targets"], "Targets")


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
