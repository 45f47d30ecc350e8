"""The command `amnesiac audit`."""

from typing import Annotated, Any

import typer

from flows.operations import Json
from flows.session import ready


def audit(
    models: Annotated[int, typer.Option(min=4, help="Models on each side; 32 or more for a figure to quote.")] = 16,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A forget set; may be repeated. Default: all four.")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the training samples in each forget set.")] = 0.01,
    also: Annotated[list[str] | None, typer.Option(help="Compare a further method; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with the settings' threads.")] = 2,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 also if the method is told apart.")] = False,
    as_json: Json = False,
) -> None:
    """Tell unlearned from retrained models, over ensembles. Example: [bold]amnesiac audit --models 8 --set random[/]

    Trains dozens of models on this project's data and settings, other seeds; members that are there are kept, so a
    killed audit goes on. Exit code 1 if the audit fails its own check: a held-out retraining must pass it, an untouched
    original must fail it. What the figures mean: docs/evidence.md.
    """
    with ready():
        from flows.audit import audit as flow
        from tasks.ensembles import AuditPlan

        given = AuditPlan(models, share=share, also=tuple(also or ()), workers=workers)
        plan = AuditPlan(models, tuple(sets), share, given.also, workers) if sets else given
        result = flow(plan)
        _show(result, as_json)
        verdict = result["verdict"]
        if not verdict["sound"] or (check and not verdict["passes"]):
            raise typer.Exit(1)


def _show(result: dict[str, Any], as_json: bool) -> None:
    from rich.table import Table

    from flows.terminal import console, print_json
    from tasks.ensembles import audit_table

    if as_json:
        print_json(result)
        return
    rows = audit_table(result)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print(result["verdict"]["sentence"], highlight=False)
    console.print(result["verdict"]["check"], style="" if result["verdict"]["sound"] else "bold red", highlight=False)
