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

    The artifact follows whatever stage is being worked on, at most every two seconds: the server takes about 20
    calls a second.
    """
    bars = _terminal_bars()
    artifact: UUID = create_progress_artifact(0.0, key=key, description=description)  # type: ignore[assignment]
    state = {"sent": time.monotonic()}
    places: dict[str, int] = {}

    def listen(stage: str, done: int, total: int) -> None:
        if bars is not None:
            place = places.setdefault(stage, len(places))
            if place == len(bars.tasks):
                bars.add_task(stage, total=total)
            bars.update(bars.tasks[place].id, completed=done, total=total)
        if time.monotonic() - state["sent"] > _ARTIFACT_SECONDS:
            state["sent"] = time.monotonic()
            update_progress_artifact(artifact, progress=100.0 * done / max(total, 1))

    with bars or nullcontext():
        yield listen
    update_progress_artifact(artifact, progress=100.0)


def _terminal_bars() -> Progress | None:
    if not sys.stderr.isatty():
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
