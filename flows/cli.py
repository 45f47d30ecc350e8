"""The command line `amnesiac`. Exit codes: 0 done, 1 something is wrong with what is on disk, 2 bad usage or bad
input.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.bench_figures import bench
from tasks.prefect_environment import configure

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
request = typer.Typer(no_args_is_help=True, help="File and list deletion requests.")
app.add_typer(request, name="request")
app.add_typer(bench, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Run even if DVC calls the stage up to date.")]
Port = Annotated[int, typer.Option(help="Port of the local Prefect server, where none is running.")]


@app.callback()
def main_options() -> None:
    """Per-sample amnesiac unlearning: capture while training, forget by subtraction, compare with retraining.

    Run in the project's folder (params.yaml, dvc.yaml). Every stage is also `dvc repro STAGE`.
    """


@app.command()
def prepare(force: Force = False, as_json: Json = False) -> None:
    """Prepare the data set of params.yaml. Example: [bold]amnesiac prepare --json[/]"""
    with _ready():
        from flows.prepare import prepare as flow

        _tell("prepare", flow(force), as_json)


@app.command()
def train(
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last epoch that a killed run finished.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train the model and capture every sample's contribution. Example: [bold]amnesiac train --resume[/]"""
    with _ready():
        from flows.train_and_capture import train_and_capture as flow

        _tell("train", flow(resume, force), as_json)


@app.command()
def unlearn(force: Force = False, as_json: Json = False) -> None:
    """Unlearn all pending requests in one batch. Example: [bold]amnesiac unlearn[/]"""
    with _ready():
        from flows.unlearn_batch import unlearn_batch as flow

        result = flow(force)
        _tell("unlearn", result if isinstance(result, dict) else None, as_json)


@app.command()
def evaluate(force: Force = False, as_json: Json = False) -> None:
    """Compare the unlearned with a retrained model. Example: [bold]amnesiac evaluate --json[/]"""
    with _ready():
        from flows.console import print_comparison
        from flows.evaluate_unlearning import evaluate_unlearning as flow

        flow(force)
        print_comparison(as_json)


@app.command()
def verify(as_json: Json = False) -> None:
    """Recompute the subtraction's result from the rows that are left. Example: [bold]amnesiac verify --json[/]

    Covers unlearned/model.safetensors (settled deltas), not what repair or retraining made beside it. Exit codes: 1
    something is wrong, and it says what; 2 there is nothing to verify yet.
    """
    with _ready(server=False):
        from flows.console import print_verification
        from tasks.verification import verify_published

        found = verify_published()
        print_verification(found, as_json)
        if found.problems:
            raise typer.Exit(1)


@app.command()
def cycle(
    random_people: Annotated[int, typer.Option(help="File a request for this many randomly drawn samples.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    forget_class: Annotated[list[str] | None, typer.Option(help="File a request for a class; may be repeated.")] = None,
    force: Force = False,
    port: Port = 4200,
    as_json: Json = False,
) -> None:
    """Run the whole pipeline. Example: [bold]amnesiac cycle --random-people 20 --forget-class 3[/]"""
    with _ready(server=False):
        from flows.console import print_comparison, print_where_to_look
        from flows.full_cycle import full_cycle
        from tasks.deletion import NewRequest
        from tasks.prefect_server import local_server

        drawn = [NewRequest(random_count=random_people, random_seed=seed)] if random_people else []
        classes = [NewRequest(classes=(name,)) for name in forget_class or []]
        with local_server(port):
            state = full_cycle(drawn + classes, force, return_state=True)
            state.result()
            print_comparison(as_json)
            if not as_json:
                print_where_to_look(state.state_details.flow_run_id)


@request.command("add")
def request_add(
    file: Annotated[Path | None, typer.Argument(help="CSV or JSON lines, see docs/requests.md.")] = None,
    sample: Annotated[list[str] | None, typer.Option(help="Sample id; may be repeated.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Subject id: all of the person's samples.")] = None,
    class_name: Annotated[list[str] | None, typer.Option("--class", help="Class name or index.")] = None,
    random_count: Annotated[int, typer.Option("--random", help="A seeded draw of so many training samples.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    request_id: Annotated[
        str | None, typer.Option("--id", help="Id of the request; derived from it if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """File deletion requests. Example: [bold]amnesiac request add --subject mnist-5k-00042[/]"""
    with _ready():
        from amnesiac.requests import RequestDraft, draw_random, read_requests
        from flows.console import print_filed
        from tasks.catalog import catalog
        from tasks.deletion import file_requests, plan_requests
        from tasks.stages import when_idle

        drafts = list(read_requests(file)) if file else []
        given = {"samples": sample, "subject": subject, "class": class_name}
        drafts += [RequestDraft(kind, tuple(values), request_id) for kind, values in given.items() if values]  # type: ignore[arg-type]
        if random_count:
            drafts.append(draw_random(catalog().dataset().index, seed, count=random_count, request_id=request_id))
        if not drafts:
            raise typer.BadParameter("name a FILE, --sample, --subject, --class or --random")
        result = file_requests(drafts)
        when_idle(plan_requests)  # so that `dvc repro` sees them; a run that is at work takes its own look
        print_filed(result, as_json)


@request.command("list")
def request_list(as_json: Json = False) -> None:
    """List the requests and which are pending. Example: [bold]amnesiac request list --json[/]"""
    with _ready():
        from flows.console import print_requests

        print_requests(as_json)


@app.command()
def serve(
    port: Port = 4200,
    poll: Annotated[float, typer.Option(help="Seconds between looks at what is due.")] = 5.0,
) -> None:
    """Start (or connect to) a Prefect server and run deletion batches on schedule. Example: [bold]amnesiac serve[/]"""
    with _ready(server=False):
        from flows.deployments import deployment, serve_deployments
        from flows.full_cycle import full_cycle
        from flows.unlearn_batch import unlearn_batch
        from tasks.catalog import catalog
        from tasks.prefect_server import local_server

        recurrence = catalog().params().recurrence
        batch = deployment(unlearn_batch, "scheduled", recurrence, {"evaluate": recurrence.evaluate})
        with local_server(port) as url:
            typer.echo(f"dashboard: {url.removesuffix('/api')}  (Ctrl-C ends it)", err=True)
            serve_deployments([batch, deployment(full_cycle, "on-demand")], poll)


@app.command()
def dashboard(port: Port = 4200) -> None:
    """Show past runs: start a Prefect server until Ctrl-C. Example: [bold]amnesiac dashboard[/]"""
    with _ready(server=False):
        import signal

        from tasks.prefect_server import local_server

        with local_server(port) as url:
            typer.echo(f"dashboard: {url.removesuffix('/api')}  (Ctrl-C ends it)")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


@contextmanager
def _ready(server: bool = True) -> Iterator[None]:
    """Private settings for Prefect and DVC; the project's running server, if there is one; errors as one line."""
    try:
        project = Path(os.environ.get("AMNESIAC_PROJECT", "."))
        if not (project / "params.yaml").exists():
            raise typer.BadParameter(f"{project.resolve()} holds no params.yaml: run this in the project's folder")
        with _errors_as_lines(), _connected() if server else nullcontext():
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
def _errors_as_lines() -> Iterator[None]:
    from amnesiac.errors import AmnesiacError, InputError

    try:
        yield
    except AmnesiacError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error


def _tell(stage: str, result: Any, as_json: bool) -> None:
    from flows.console import print_stage

    print_stage(stage, result, as_json)


def main() -> None:
    """The console script."""
    project = Path(os.environ.get("AMNESIAC_PROJECT", ".")).resolve()
    if (project / "params.yaml").exists():  # elsewhere no command runs, and help must leave nothing behind
        configure(project)
    sys.path.append(str(project))  # a console script doesn't see the user's own models that lie in the project
    app()
