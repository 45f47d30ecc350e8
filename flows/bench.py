"""`amnesiac bench`: measurements that take minutes or longer, apart from the pipeline and its project folder."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import typer

from flows.bench_audit import audit

bench = typer.Typer(no_args_is_help=True, help="Measure the methods against retraining.")

# Fields of the rows and their headings; F: forget set
FIGURES = {
    "forget_accuracy": "acc. F",
    "retain_accuracy": "retain",
    "test_accuracy": "test",
    "kl_forget": "KL F",
    "kl_test": "KL test",
    "margin_forget": "margin F",
    "seconds": "seconds",
    "bytes_per_sample": "bytes",
}
WIDTH = 140
PLACE = ("case", "dataset", "model", "optimizer")

bench.command()(audit)


@bench.callback()
def bench_options() -> None:
    """Measure the methods against retraining."""


@bench.command()
def forgetting(
    profile: Annotated[
        Literal["quick", "full", "calibration"],
        typer.Option(help="quick: MNIST-5k, minutes; full: MNIST and CIFAR-100, many hours; calibration: see docs."),
    ] = "quick",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    seeds: Annotated[list[int] | None, typer.Option(metavar="SEED...", help="Instead of the profile's: 0 1 2.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="A case or config, e.g. 'class 3', mlp-sgd; repeatable.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot of KL on the forget set: .png or .svg.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps each run's rows: a killed run goes on.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = 2,
    data_root: Annotated[
        Path | None, typer.Option(envvar="AMNESIAC_DATA_ROOT", help="Published data; default: ../shared/datasets.")
    ] = None,
    more_seeds: Annotated[list[int] | None, typer.Argument(hidden=True)] = None,  # `--seeds 0 1 2`
) -> None:
    """Forget with every method and compare with retraining. Example: [bold]amnesiac bench forgetting --check[/]"""
    if more_seeds and not seeds:
        raise typer.BadParameter(f"unexpected {' '.join(map(str, more_seeds))}: seeds follow --seeds")
    chosen = tuple(seeds or ()) + tuple(more_seeds or ())
    result = _measured(profile, tuple(only or ()), chosen, cache, workers, data_root or shared_data(), plot)
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print_tables(result)
    if check and not all(target["met"] for target in result["targets"]):
        raise typer.Exit(1)


@bench.command()
def store(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    megabytes: Annotated[int, typer.Option(min=1, help="Bytes written for each row length and variant, in MiB.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are taken over them.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where to write; default: the system's temporary folder.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
) -> None:
    """Compare encrypted rows with checksums and a plain file. Example: [bold]amnesiac bench store --json[/]"""
    from benchmarks.store import benchmark

    with core_errors(), progress_of("store") as on_round:
        result = benchmark(megabytes, rounds, folder, on_round)
    if as_json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _print_store(result)
    if check and not all(target["met"] for target in result["targets"]):
        raise typer.Exit(1)


def _measured(
    profile: str, only: tuple[str, ...], seeds: tuple[int, ...], cache: Path | None, workers: int,
    data_root: Path | None, plot: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Run it, with progress on stderr; an error of the core is one line and exit code 1 or 2."""
    from benchmarks.forgetting import PROFILES, Options, benchmark
    from benchmarks.forgetting_plot import check_suffix, write_plot

    with core_errors():
        if plot:
            check_suffix(plot)
        with progress_of("forgetting") as on_job:
            result = benchmark(PROFILES[profile], Options(only, seeds, data_root, cache, workers), on_job)
        if plot:
            write_plot(plot, result["rows"])
    return result


@contextmanager
def core_errors() -> Iterator[None]:
    """An error of the core as one line and exit code 1 or 2."""
    from amnesiac.errors import AmnesiacError, InputError

    try:
        yield
    except AmnesiacError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error


@contextmanager
def progress_of(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Runs as they finish, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("runs", total=None)

        def on_job(label: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            bar.console.print(label, highlight=False)

        yield on_job


def _print_tables(result: Mapping[str, Any]) -> None:
    """Means over seeds by case, config and method; then the targets."""
    console = wide_console()
    console.print(_figures_table(result["rows"]), _targets_table(result["targets"]))
    met = sum(target["met"] for target in result["targets"])
    console.print(f"{met} of {len(result['targets'])} targets met", highlight=False)
    if "calibration" in result:
        console.print(_calibration_table(result["calibration"]))
    cost = result["cost"]
    console.print(
        f"{cost['wall_seconds']:.0f} s on {cost['cores']} cores, {cost['cpu_seconds']:.0f} s of CPU time "
        f"({cost['seconds_on_two_free_cores'] / 60:.1f} minutes on two free cores); {cost['runs']} runs, "
        f"{cost['cached_runs']} from the cache",
        highlight=False,
    )


def wide_console() -> Any:
    """Stdout, wide enough for the tables where it isn't a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _print_store(result: Mapping[str, Any]) -> None:
    """A line a measurement, then how many targets are met."""
    from rich.table import Table

    console = wide_console()
    table = Table("what", "rows", "variant", "n", "seconds", "CPU seconds", "/ plain", "CPU / checksum", box=None)
    for row in result["rows"]:
        numbers = (row[name] for name in ("n", "seconds", "cpu_seconds", "ratio", "over_checksum"))
        table.add_row(row["what"], row["model"], row["variant"], *(_short(number) for number in numbers))
    met = sum(target["met"] for target in result["targets"])
    console.print(table, f"{met} of {len(result['targets'])} targets met")


def _figures_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A line a case, config, method and whether it was repaired."""
    from rich.table import Table

    table = Table("case", "config", "method", "n", *FIGURES.values(), box=None, title="Means over seeds")
    names, before = (*PLACE, "method", "repaired"), ""
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in names) == key]
        numbers = [_short(_mean([row[name] for row in own])) for name in FIGURES]
        config, method = " ".join(key[1:4]), f"{key[4]}, repaired" if key[5] else key[4]
        place = (key[0], config) if before != key[0] + config else ("", "")
        before = key[0] + config
        table.add_row(*place, method, str(len(own)), *numbers)
    return table


def _targets_table(targets: Sequence[Mapping[str, Any]]) -> Any:
    """A line a target."""
    from rich.table import Table

    table = Table("case", "config", "what", "measured", "target", "spread", "met", box=None)
    table.title = "Targets: measured <= target; spread: two retrainings that differ in the seed"
    for one in targets:
        numbers = (_short(one[name]) for name in ("measured", "target", "spread"))
        config, met = " ".join(one[name] for name in PLACE[1:]), "yes" if one["met"] else "[bold red]NO[/]"
        table.add_row(one["case"], config, one["what"], *numbers, met)
    return table


def _calibration_table(found: Mapping[str, Any]) -> Any:
    """Predicted against measured divergence."""
    from rich.table import Table

    seen = "" if found["out_of_sample"] else ", some of which its constants were chosen on"
    table = Table("forget sets", "n", "correlation of logs", "median ratio", "within a factor of 3", box=None)
    table.title = f"Predicted / measured KL on retained samples, seeds {found['seeds']}{seen}"
    for name, one in found.items():
        if isinstance(one, Mapping):
            numbers = (one["log_correlation"], one["median_ratio"], one["within_3"])
            table.add_row(name, str(one["n"]), *map(_short, numbers))
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _short(value: float | None) -> str:
    """Four digits; a dash where there is no (finite) number."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shared_data() -> Path | None:
    """Where this project's published data lie, if they are there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    return folder if folder.is_dir() else None
