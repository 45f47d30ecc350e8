"""`amnesiac journal`: move the deletion journal to a PostgreSQL server, or export it to a file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.operations import Json
from flows.session import ready

journal = typer.Typer(no_args_is_help=True, help="Move the deletion journal to a server, or export it.")


@journal.command("move")
def journal_move(
    address: Annotated[str, typer.Argument(help="e.g. postgresql://user@host/database?sslmode=verify-full")],
    as_json: Json = False,
) -> None:
    """Move the journal's file to a server. Example: [bold]amnesiac journal move postgresql:///deletions[/]

    Then set AMNESIAC_JOURNAL to the same address. The file is overwritten and removed.
    """
    with ready(server=False):
        from tasks.journal import move_journal

        count = move_journal(address)
        said = f"{count} requests are on the server, and the file is gone: set AMNESIAC_JOURNAL={address}"
        typer.echo(json.dumps({"requests": count, "journal": address}) if as_json else said)


@journal.command("export")
def journal_export(
    folder: Annotated[Path, typer.Argument(help="A folder without a journal; it gets a SQLite file with ids.")],
    as_json: Json = False,
) -> None:
    """Copy the journal, wherever it lies, to a file: for a backup. Example: [bold]amnesiac journal export DIR[/]"""
    with ready(server=False):
        from tasks.journal import export_journal

        count = export_journal(folder)
        said = f"{count} requests are in {folder}"
        typer.echo(json.dumps({"requests": count, "journal": str(folder)}) if as_json else said)
