"""`amnesiac journal`: move the deletion journal to a PostgreSQL server, or export it to a file."""

from pathlib import Path
from typing import Annotated

import typer

from flows.session import ready

journal = typer.Typer(no_args_is_help=True, help="Move the deletion journal to a server, or export it.")


@journal.command("move")
def journal_move(
    address: Annotated[str, typer.Argument(help="e.g. postgresql://user@host/database?sslmode=verify-full")],
) -> None:
    """Move the journal's file to a server; then set AMNESIAC_JOURNAL to the same address."""
    with ready(server=False):
        from tasks.journal import move_journal

        count = move_journal(address)
        typer.echo(f"{count} requests are on the server, and the file is gone: set AMNESIAC_JOURNAL={address}")


@journal.command("export")
def journal_export(
    folder: Annotated[Path, typer.Argument(help="A folder without a journal; it gets a SQLite file with ids.")],
) -> None:
    """Copy the journal, wherever it lies, to a file: for a backup. Example: [bold]amnesiac journal export DIR[/]"""
    with ready(server=False):
        from tasks.journal import export_journal

        typer.echo(f"{export_journal(folder)} requests are in {folder}")
