"""What a flow is asked to forget never reaches Prefect's database: refused as a parameter, kept in a private file."""

import asyncio
import json
import os
import re
import stat
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from amnesiac.errors import StoreError
from flows.deployments import deployment, refuse_other_parameters
from flows.full_cycle import full_cycle
from tasks.handing_in import NewRequest, file_handed_in, hand_in

PERSON = "writer-who-must-not-be-named"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    return tmp_path


async def close(deployment_id: UUID) -> None:
    async with get_client() as client:
        await refuse_other_parameters(client, deployment_id)


def database() -> bytes:
    """All that Prefect keeps: the database with its log, and the server's log."""
    home = Path(os.environ["PREFECT_HOME"])
    return b"".join(path.read_bytes() for path in [*home.glob("prefect.db*"), *home.glob("*.log")])


def test_ids_are_refused_as_parameters_before_anything_is_stored(api_url: str) -> None:
    on_demand = deployment(full_cycle, "handing-in").apply()
    asyncio.run(close(on_demand))  # type: ignore[arg-type]
    with get_client(sync_client=True) as client:
        for parameters in (
            {"requests": [{"samples": [PERSON]}]},
            {"handed_in": PERSON},
            {"handed_in": {"subject": PERSON}},
        ):
            with pytest.raises(PrefectHTTPStatusError, match="409"):
                client.create_flow_run_from_deployment(on_demand, parameters=parameters)
        client.create_flow_run_from_deployment(on_demand, parameters={"handed_in": "0123456789abcdef"})
        client.delete_deployment(on_demand)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="requests"):
        full_cycle(requests=[{"samples": [PERSON]}])  # type: ignore[call-overload]
    assert b"0123456789abcdef" in database(), "or nothing could be found"
    assert PERSON.encode() not in database()


def test_a_run_shows_a_reference_and_the_request_waits_in_a_private_file(api_url: str, project: Path) -> None:
    reference = hand_in([NewRequest(samples=(PERSON,)), NewRequest(classes=("anna",))])
    assert reference is not None and re.fullmatch(r"[0-9a-f]{16}", reference)
    state = full_cycle(reference, return_state=True)
    assert state.is_failed(), "there is no project here"
    assert reference.encode() in database() and PERSON.encode() not in database()
    [waiting] = (project / "pipeline_data/journal/handed-in").iterdir()
    assert [one["samples"] + one["classes"] for one in json.loads(waiting.read_text())] == [[PERSON], ["anna"]]
    assert stat.S_IMODE(waiting.parent.stat().st_mode) == stat.S_IMODE(waiting.parents[1].stat().st_mode) == 0o700


def test_nothing_is_kept_for_nobody_and_a_damaged_file_is_named(project: Path) -> None:
    assert hand_in([]) is None
    assert file_handed_in() == 0
    assert list(project.iterdir()) == []
    hand_in([NewRequest(subject=PERSON)])
    [waiting] = (project / "pipeline_data/journal/handed-in").iterdir()
    waiting.write_text('[{"subjekt": "x"}]')
    with pytest.raises(StoreError, match=rf"{waiting.name} isn't what was handed in .*remove it"):
        file_handed_in()
