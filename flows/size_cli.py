"""The command `amnesiac size`."""

from typing import Annotated, Any, Literal

import typer

from flows.operations import Json
from flows.session import errors_as_lines

Number = Annotated[float, typer.Option(min=1, help="May be written 1e6.")]
LayerText = Annotated[
    list[str] | None, typer.Option("--layer", help="OUTxIN, OUTxINxCOUNT or OUTxINxCOUNT@POSITIONS; may be repeated.")
]
Prices = Annotated[str, typer.Option(help="GB and month, put, get, core hour: e.g. 0.023,5e-6,4e-7,0.05.")]


def size(
    samples: Number = 1e6,
    parameters: Number = 1e8,
    maps: Annotated[int, typer.Option(min=1, help="Linear maps of the model, where no --layer is given.")] = 50,
    layer: LayerText = None,
    last: Annotated[int | None, typer.Option(min=1, help="capture.layers: only the last so many.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    rows: Annotated[Literal["low-rank", "dense", "masked"], typer.Option(help="capture.settled.rows.")] = "low-rank",
    rank: Annotated[int, typer.Option(min=1, help="capture.settled.rank.")] = 2,
    class_rank: Annotated[int, typer.Option(min=0, help="capture.settled.class_rank; 0: no class rows.")] = 1,
    bits: Annotated[int, typer.Option(min=8, max=32, help="capture.settled.bits.")] = 8,
    spool_rank: Annotated[int | None, typer.Option(min=1, help="capture.rank; default: exact.")] = None,
    half: Annotated[bool, typer.Option("--half", help="capture.dtype float16.")] = False,
    deletions: Annotated[int, typer.Option(min=0, help="Samples deleted a month.")] = 1000,
    batches: Annotated[int, typer.Option(min=0, help="Deletion batches a month.")] = 4,
    other_seeds: Annotated[int, typer.Option(min=0, help="evaluation.other_seeds.")] = 1,
    training_hours: Annotated[float | None, typer.Option(min=0, help="Of one plain training; else estimated.")] = None,
    prices: Prices = "0,0,0,0",
    as_json: Json = False,
) -> None:
    """Estimate what a ledger costs, before training. Example: [bold]amnesiac size --samples 1e6 --parameters 1e8[/]

    Bytes follow from the formats; times from what was measured on small models, to a factor of three (docs/sizing.md).
    """
    with errors_as_lines():
        from amnesiac.sizing import Prices as Money
        from amnesiac.sizing import Sizing, estimate, last_layers, parse_layer, square_layers
        from benchmarks.constants import measured

        layers = tuple(map(parse_layer, layer)) if layer else square_layers(int(parameters), maps)
        whole = sum(one.parameters for one in layers)
        found = estimate(
            Sizing(
                int(samples),
                whole,
                layers if last is None else last_layers(layers, last),
                epochs,
                rows,
                rank,
                class_rank,
                bits,
                spool_rank=spool_rank,
                spool_bytes=2 if half else 4,
                deletions=deletions,
                batches=batches,
                references=1 + other_seeds,
                training_hours=training_hours,
                constants=measured(),
                prices=Money(*_numbers(prices)),
            )  # fmt: skip
        )
        _show(found, as_json)


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != 4 or min(found) < 0:
        raise typer.BadParameter(f"--prices {text!r}: four numbers, none below 0: GB and month, put, get, core hour")
    return found


def _show(found: dict[str, Any], as_json: bool) -> None:
    from rich.table import Table

    from flows.terminal import console, print_json

    if as_json:
        print_json(found)
        return
    table = Table("what", "how much")
    for part in ("bytes", "requests", "core_seconds", "month", "money"):
        table.add_section()
        for name, value in found[part].items():
            table.add_row(f"{part.replace('_', ' ')}: {name.replace('_', ' ')}", _said(name, part, value))
    console.print(table)


def _said(name: str, part: str, value: Any) -> str:
    if "bytes" in (part, *name.split("_")):
        return _bytes(value)
    if isinstance(value, int) or part == "money":
        return f"{value:,.2f}" if part == "money" else f"{value:,}"
    low, high = value if isinstance(value, (tuple, list)) else (value, value)
    return _time(low) if f"{low:.2g}" == f"{high:.2g}" else f"{_time(low)} to {_time(high)}"


def _bytes(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            break
        value /= 1000
    return f"{value:,.3g} {unit}"


def _time(seconds: float) -> str:
    return f"{seconds:,.3g} s" if seconds < 3600 else f"{seconds / 3600:,.3g} h"
