"""Requests that a flow is to file: they wait in a private file, and the flow's parameter carries an opaque reference.

What a flow gets as a parameter stays in Prefect's database for good, so no id of a sample, subject or class may be one.
"""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from amnesiac.durable import write_json
from amnesiac.errors import RequestError, StoreError
from amnesiac.requests import RequestDraft, draw_random
from amnesiac.section import Settings
from tasks.catalog import catalog
from tasks.opaque import opaque
from tasks.requesting import file_requests

Reference = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""What `hand_in` returned. Prefect's server refuses anything else, before it is stored."""


class NewRequest(Settings):
    """A deletion request that isn't filed yet, since the data may have to be prepared first.

    Exactly one of: `samples`, `subject`, `classes`, `random_count` (a seeded draw of training samples, for
    experiments).
    """

    samples: tuple[str, ...] = ()
    subject: str | None = None
    classes: tuple[str, ...] = ()
    random_count: int | None = None
    random_seed: int = 0


def hand_in(requests: Sequence[NewRequest]) -> str | None:
    """Keep requests in a private folder beside the journal for the next run that files; a reference for its parameters.

    None, and nothing is kept, where there are no requests.
    """
    if not requests:
        return None
    folder, reference = _folder(), secrets.token_hex(8)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    write_json(folder / f"{reference}.json", [request.model_dump(mode="json") for request in requests])
    return reference


def file_handed_in() -> int:
    """Journal all that was handed in, also for a run that was killed before it filed; how many requests are new.

    What was journalled or refused is removed. Raises what `file_requests` raises.
    """
    waiting = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return sum(_file(path) for path in waiting)


@task(name="file requests", cache_policy=NO_CACHE, persist_result=False)
@opaque
def file_new_requests() -> int:
    """`file_handed_in` as a step of a flow."""
    return file_handed_in()


def draft(request: NewRequest) -> RequestDraft:
    """A request as the journal takes it."""
    if request.random_count is not None:
        index, name = catalog().dataset().index, _random_id(request)
        return draw_random(index, request.random_seed, count=request.random_count, request_id=name)
    if request.subject is not None:
        return RequestDraft("subject", (request.subject,))
    return RequestDraft("class", request.classes) if request.classes else RequestDraft("samples", request.samples)


def _folder() -> Path:
    return catalog().journal / "handed-in"


def _file(path: Path) -> int:
    held = {request.request_id for request in catalog().open_journal().requests()}
    try:
        drafts = [draft(request) for request in _read(path) if _random_id(request) not in held]
        filed = len(file_requests(drafts).filed)
    except RequestError:
        path.unlink()  # nothing of it was filed, and it would be refused again by every run
        raise
    path.unlink()
    return filed


def _read(path: Path) -> list[NewRequest]:
    try:
        return [NewRequest.model_validate(one) for one in json.loads(path.read_text())]
    except ValueError as error:
        raise StoreError(f"{path} isn't what was handed in ({type(error).__name__}): remove it, file again") from error


def _random_id(request: NewRequest) -> str | None:
    """The same draw has the same id, so that it is made once: later other samples would be drawn, of those left."""
    return None if request.random_count is None else f"random-{request.random_count}-seed-{request.random_seed}"
