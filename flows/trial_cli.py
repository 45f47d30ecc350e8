"""The command `amnesiac trial`."""

from typing import Annotated, Any

import typer

from flows.operations import Json
from flows.session import ready


def trial(
    random: Annotated[int, typer.Option(min=0, help="Batches of randomly drawn samples.")] = 4,
    share: Annotated[float, typer.Option(help="Share of the training samples in each of them.")] = 0.01,
    forget_class: Annotated[list[str] | None, typer.Option(help="Also a whole class; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Try deletions without deleting anything. Example: [bold]amnesiac trial --random 4 --forget-class 3[/]

    Each batch is subtracted from the published model (before anything is published, from the trained one) in memory and
    compared with a model retrained without it, and with `evaluation.other_seeds` more. Table, CSV and plot are in
    pipeline_data/reports/trials. With `orchestration.task_runner: dask` the batches are tried at once.
    """
    with ready():
        from flows.trial import trial as flow
        from tasks.trials import TrialPlan

        _show(flow(TrialPlan(random, share, tuple(forget_class or ()), seed)), as_json)


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    from rich.table import Table

    from amnesiac.evaluation import trials_table
    from flows.terminal import console, print_json
    from tasks.catalog import catalog

    if as_json:
        print_json({"rows": rows})
        return
    lines = trials_table(rows)
    table = Table(*lines[0])
    for line in lines:
        table.add_row(*line.values())
    console.print(table)
    console.print(f"plot: {catalog().reports / 'trials' / 'trials.png'}", highlight=False)
