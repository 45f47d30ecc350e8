"""What every command runs in: the project's settings, its Prefect server if one runs, and errors as one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import typer


@contextmanager
def ready(server: bool = True) -> Iterator[None]:
    """Private settings for Prefect and DVC; the project's running server, if there is one; errors as one line."""
    try:
        project = Path(os.environ.get("AMNESIAC_PROJECT", "."))
        if not (project / "params.yaml").exists():
            raise typer.BadParameter(f"{project.resolve()} holds no params.yaml: run this in the project's folder")
        with errors_as_lines(), _connected() if server else nullcontext():
            yield
    except BrokenPipeError:
        sys.exit(1)


@contextmanager
def _connected() -> Iterator[None]:
    from tasks.prefect_server import connected, running_server

    url = running_server()
    with connected(url) if url else nullcontext():
        yield


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Errors of the package and of the disk as one line, with the exit code; needs no project."""
    from amnesiac.errors import AmnesiacError, InputError
    from tasks.opaque import shown_whole

    try:
        with shown_whole():
            yield
    except AmnesiacError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
    except BrokenPipeError:
        raise
    except OSError as error:  # a full or failing disk, missing rights
        said = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        typer.secho(
            f"error: {said}. Free disk space or mend the permissions, then run the command again: what was half-"
            "written is cleared away, and a batch goes on from its last state",
            err=True, fg=typer.colors.RED,
        )  # fmt: skip
        raise typer.Exit(1) from error
