"""Registering prefect.yaml's deployments with a Prefect server: work pool, what they refuse, automations."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from amnesiac.errors import AmnesiacError, SettingsError
from amnesiac.operation import RecurrenceSettings
from flows.deployed import FILE, project_deployments, read_prefect_yaml, refuse_disagreement
from flows.deployments import refuse_other_parameters
from tasks.alarms import Alarms


class DeployError(AmnesiacError):
    """Prefect didn't take the deployments."""


async def deploy_project(root: Path, recurrence: RecurrenceSettings, pool_type: str = "process") -> dict[str, str]:
    """Register what `root`'s prefect.yaml describes; the ids of the deployments, by name.

    Makes the work pool if the server has none of that name. Deployments then refuse parameters that their flow doesn't
    have, and the automations tell of failed, crashed, late and silent runs. May be called again: it brings all up to
    date. Raises SettingsError where prefect.yaml and params.yaml disagree, DeployError with what Prefect said.
    """
    path = root / FILE
    refuse_disagreement(path, recurrence)
    async with get_client() as client:
        await _have_pool(client, read_prefect_yaml(path)[0]["work_pool"]["name"], pool_type)
        _prefect_deploy(root)
        wanted = project_deployments(recurrence)
        ids = {str(one.name): await _id(client, f"{one.flow_name}/{one.name}") for one in wanted}
        for number in ids.values():
            await refuse_other_parameters(client, number)
        alarms = Alarms(root.name, recurrence)
        await alarms.register(client, list(ids.values()))
        await alarms.watch_heartbeats(client, list(ids.values()))
    return {name: str(number) for name, number in ids.items()}


async def _id(client: PrefectClient, name: str) -> UUID:
    return (await client.read_deployment_by_name(name)).id


async def _have_pool(client: PrefectClient, name: str, kind: str) -> None:
    try:
        found = (await client.read_work_pool(name)).type
    except ObjectNotFound:
        template = await get_default_base_job_template_for_infrastructure_type(kind)
        if template is None:
            raise SettingsError(
                f"no work pool type is called {kind!r} here: use process, or install the integration that brings it "
                "(prefect-docker, prefect-kubernetes)"
            ) from None
        await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        return
    if found != kind:
        raise SettingsError(f"the server's work pool {name!r} is of type {found!r}: pass --type {found}, or rename it")


def _prefect_deploy(root: Path) -> None:
    """Prefect's own command, so that prefect.yaml may use all that Prefect knows (images, templates, job variables)."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise DeployError(f"`prefect deploy --all` failed in {root}: {(done.stderr or done.stdout).strip()[-2000:]}")
