"""The command line `amnesiac`. Exit codes: 0 done, 1 something is wrong with what is on disk, 2 bad usage or bad
input.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.audit_cli import audit
from flows.bench_compare import bench
from flows.journal_cli import journal
from flows.operations import Json, history, publish, recover, restore, rollback, status
from flows.receipts_cli import receipt, recipient
from flows.session import ready
from flows.size_cli import size
from flows.trial_cli import trial
from flows.workers_cli import deploy, worker
from tasks.prefect_environment import configure

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
request = typer.Typer(no_args_is_help=True, help="File and list deletion requests.")
app.add_typer(request, name="request")
app.add_typer(bench, name="bench")
for operation in (publish, recover, restore, rollback, status, history, audit, trial, deploy, worker, size):
    app.command()(operation)
app.add_typer(receipt, name="receipt")
app.add_typer(journal, name="journal")
app.add_typer(recipient, name="recipient")

Force = Annotated[bool, typer.Option("--force", help="Run even if DVC calls the stage up to date.")]
UiHost = Annotated[str, typer.Option(help="Where the status page listens; others than this machine need a token.")]
UiPort = Annotated[int, typer.Option(help="The status page's port.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the status page's token, mode 0600; else AMNESIAC_UI_TOKEN.")
]
Host = Annotated[
    str, typer.Option(help="Where the server listens. Beyond this machine it needs PREFECT_SERVER_API_AUTH_STRING.")
]
Port = Annotated[int, typer.Option(help="Port of the local Prefect server, where none is running.")]


@app.callback()
def main_options() -> None:
    """Per-sample amnesiac unlearning: capture while training, forget by subtraction, compare with retraining.

    Run in the project's folder (params.yaml, dvc.yaml). Every stage is also `dvc repro STAGE`.
    """


@app.command()
def prepare(force: Force = False, as_json: Json = False) -> None:
    """Prepare the data set of params.yaml. Example: [bold]amnesiac prepare --json[/]"""
    with ready():
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
    with ready():
        from flows.train_and_capture import train_and_capture as flow

        _tell("train", flow(resume, force), as_json)


@app.command()
def unlearn(force: Force = False, as_json: Json = False) -> None:
    """Stage the version without all pending requests; publishes nothing. Example: [bold]amnesiac unlearn[/]

    `amnesiac publish` stages, evaluates and publishes.
    """
    with ready():
        from flows.stage_deletion import stage_deletion as flow

        _tell("unlearn", flow(force), as_json)


@app.command()
def evaluate(force: Force = False, as_json: Json = False) -> None:
    """Compare the unlearned with a retrained model. Example: [bold]amnesiac evaluate --json[/]"""
    with ready():
        from flows.console import print_comparison
        from flows.evaluate_unlearning import evaluate_unlearning as flow

        flow(force)
        print_comparison(as_json)


@app.command()
def verify(as_json: Json = False) -> None:
    """Recompute the subtraction's result from the rows that are left. Example: [bold]amnesiac verify --json[/]

    Checks HEAD, its version's files, ledger and journal, and that HEAD's subtraction (settled deltas; not what repair
    or retraining made of it) is base minus surviving rows. Before anything is published: the staged, else the trained
    model. Exit codes: 1 something is wrong, and it says what; 2 there is nothing to verify yet.
    """
    with ready(server=False):
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
    with ready(server=False):
        from flows.console import print_comparison, print_where_to_look
        from flows.full_cycle import full_cycle
        from tasks.handing_in import NewRequest, hand_in
        from tasks.prefect_server import local_server

        drawn = [NewRequest(random_count=random_people, random_seed=seed)] if random_people else []
        classes = [NewRequest(classes=(name,)) for name in forget_class or []]
        with local_server(port):
            state = full_cycle(hand_in(drawn + classes), force, return_state=True)
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
    received: Annotated[
        datetime | None, typer.Option(help="When it came in (UTC), if not now: its deadline counts from there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """File deletion requests. Example: [bold]amnesiac request add --subject mnist-5k-00042[/]"""
    with ready(server=False):
        from amnesiac.requests import RequestDraft, draw_random, read_requests
        from flows.console import print_filed
        from tasks.catalog import catalog
        from tasks.requesting import file_requests, plan_requests
        from tasks.stages import when_idle

        drafts = list(read_requests(file)) if file else []
        given = {"samples": sample, "subject": subject, "class": class_name}
        drafts += [RequestDraft(kind, tuple(values), request_id) for kind, values in given.items() if values]  # type: ignore[arg-type]
        if random_count:
            drafts.append(draw_random(catalog().dataset().index, seed, count=random_count, request_id=request_id))
        if not drafts:
            raise typer.BadParameter("name a FILE, --sample, --subject, --class or --random")
        result = file_requests(drafts, received.replace(tzinfo=UTC) if received else None)
        when_idle(plan_requests)  # so that `dvc repro` sees them; a run that is at work takes its own look
        print_filed(result, as_json)


@request.command("list")
def request_list(as_json: Json = False) -> None:
    """List the requests and which are pending. Example: [bold]amnesiac request list --json[/]"""
    with ready(server=False):
        from flows.console import print_requests

        print_requests(as_json)


@app.command()
def serve(
    port: Port = 4200,
    host: Host = "127.0.0.1",
    poll: Annotated[float, typer.Option(help="Seconds between looks at what is due.")] = 5.0,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the status page too.")] = False,
    ui_host: UiHost = "127.0.0.1",
    ui_port: UiPort = 4280,
    token_file: TokenFile = None,
) -> None:
    """Run deletion batches on schedule, with a Prefect server and a status page. Example: [bold]amnesiac serve --ui[/]

    The status page reads only. Bound to anything but this machine it needs a token (AMNESIAC_UI_TOKEN or --token-file).
    """
    with ready(server=False):
        from flows.deployed import project_deployments
        from flows.deployments import serve_deployments
        from tasks.alarms import Alarms
        from tasks.catalog import catalog
        from tasks.prefect_server import local_server

        recurrence = catalog().params().recurrence
        with local_server(port, host) as url, ExitStack() as stack:
            prefect = url.removesuffix("/api")
            typer.echo(f"dashboard: {prefect}  (Ctrl-C ends it)", err=True)
            if ui:
                stack.enter_context(_status_page(ui_host, ui_port, token_file, prefect))
            serve_deployments(project_deployments(recurrence), poll, Alarms(catalog().root.name, recurrence).register)


@app.command("ui")
def ui_alone(ui_host: UiHost = "127.0.0.1", ui_port: UiPort = 4280, token_file: TokenFile = None) -> None:
    """Serve only the status page, which reads and changes nothing. Example: [bold]amnesiac ui --ui-port 4280[/]"""
    with ready(server=False):
        import signal

        from tasks.prefect_server import running_server

        prefect = running_server()
        with _status_page(ui_host, ui_port, token_file, prefect.removesuffix("/api") if prefect else None):
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


@app.command()
def dashboard(port: Port = 4200, host: Host = "127.0.0.1") -> None:
    """Show past runs: start a Prefect server until Ctrl-C. Example: [bold]amnesiac dashboard[/]"""
    with ready(server=False):
        import signal

        from tasks.prefect_server import local_server

        with local_server(port, host) as url:
            typer.echo(f"dashboard: {url.removesuffix('/api')}  (Ctrl-C ends it)")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


@contextmanager
def _status_page(host: str, port: int, token_file: Path | None, prefect: str | None) -> Iterator[None]:
    """The status page in the block; says where it is."""
    from flows.web import read_token, status_page

    with status_page(host, port, read_token(token_file), prefect) as url:
        typer.echo(f"status page: {url}", err=True)
        yield


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
