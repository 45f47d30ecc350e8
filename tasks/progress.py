"""Progress of long work: a bar with rate and time left on a terminal, a progress artifact in the dashboard."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from amnesiac.progress import Progress as Listener

_ARTIFACT_SECONDS = 2.0


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """The rate, once it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


@contextmanager
def shown_progress(key: str, description: str) -> Iterator[Listener]:
    """A listener that shows what it hears; `key` names the artifact (lower case, digits and dashes).

    There is an artifact a stage of the work (training, curvature, sealing ...): the first is called `key`, the others
    `key` and their name. Each is told at most every two seconds: the server takes about 20 calls a second.
    """
    bars, artifacts = _terminal_bars(), _Artifacts(key, description)
    places: dict[str, int] = {}

    def listen(stage: str, done: int, total: int) -> None:
        if bars is not None:
            place = places.setdefault(stage, len(places))
            if place == len(bars.tasks):
                bars.add_task(stage, total=total)
            bars.update(bars.tasks[place].id, completed=done, total=total)
        artifacts.hear(stage, 100.0 * done / max(total, 1))

    with bars or nullcontext():
        yield listen
    artifacts.finish()


class _Artifacts:
    """Progress artifacts of one piece of work, one a stage that is heard of; one at least."""

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        first: UUID = create_progress_artifact(0.0, key=key, description=description)  # type: ignore[assignment]
        self._free: list[UUID] = [first]
        self._ids: dict[str, UUID] = {}
        self._sent: dict[str, float] = {}

    def hear(self, stage: str, percent: float) -> None:
        """Note it, and tell the server if it is time. All that is sealed is one stage, as many arrays as it has."""
        stage = stage.partition(" ")[0]
        if stage not in self._ids:
            self._ids[stage] = self._free.pop() if self._free else self._created(stage)
            self._sent[stage] = time.monotonic()
        if percent >= 100.0 or time.monotonic() - self._sent[stage] > _ARTIFACT_SECONDS:
            self._sent[stage] = time.monotonic()
            update_progress_artifact(self._ids[stage], progress=min(100.0, percent))

    def finish(self) -> None:
        """All of it is done."""
        for artifact in (*self._ids.values(), *self._free):
            update_progress_artifact(artifact, progress=100.0)

    def _created(self, stage: str) -> UUID:
        key = f"{self._key}-{stage.lower()}"
        description = f"{self._description}: {stage}"
        return create_progress_artifact(0.0, key=key, description=description)  # type: ignore[return-value]


def _terminal_bars() -> Progress | None:
    if not sys.stderr.isatty():
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
