"""The commands `amnesiac deploy` and `amnesiac worker`: the same flows on a Prefect server of a team."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.operations import Json
from flows.session import ready

PoolType = Annotated[str, typer.Option("--type", help="Type of the work pool, if it is made: process, docker ...")]
Pool = Annotated[str, typer.Option(help="The work pool of prefect.yaml.")]
Limit = Annotated[int, typer.Option(min=1, help="Runs at the same time on this worker.")]


def deploy(pool_type: PoolType = "process", as_json: Json = False) -> None:
    """Register prefect.yaml's deployments with the Prefect server. Example: [bold]amnesiac deploy --json[/]

    Uses PREFECT_API_URL, else the server that this project runs. Makes the work pool and the automations, and lets the
    deployments refuse parameters that they don't have. Again after each change of params.yaml's recurrence.
    """
    with ready(server=False):
        import asyncio

        from flows.deploying import deploy_project
        from flows.terminal import print_json
        from tasks.catalog import catalog
        from tasks.prefect_server import connected, needed_server

        with connected(needed_server()):
            ids = asyncio.run(deploy_project(catalog().root, catalog().params().recurrence, pool_type))
        if as_json:
            print_json(ids)
            return
        for name in ids:
            typer.echo(f"deployed: {name}")


def worker(pool: Pool = "amnesiac", limit: Limit = 2) -> None:
    """Carry out runs of the work pool in processes here, until Ctrl-C. Example: [bold]amnesiac worker --limit 2[/]

    Needs the project's folder (data, keys, journal) and PREFECT_API_URL. Writing runs go one at a time, whatever the
    limit: it leaves room for the alarm.
    """
    with ready(server=False):
        from tasks.prefect_server import needed_server

        os.environ["PREFECT_API_URL"] = needed_server()
        root = str(Path(os.environ.get("AMNESIAC_PROJECT", ".")).resolve())
        os.environ["AMNESIAC_PROJECT"] = root  # prefect.yaml's pull step asks for it
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]  # a model of the project's own
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        command = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", str(limit)]
        os.execv(sys.executable, [sys.executable, "-P", *command, "--install-policy", "never"])
