"""Parallel work where params.yaml's `orchestration` says: in this process, or on Dask. No result depends on it.

A task that runs on Dask is a function of positions and numbers: it loads data and keys itself, writes files of its own
under content names, and never takes the project's lock, which the flow that waits for it holds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from amnesiac.errors import AmnesiacError, SettingsError, StoreError
from amnesiac.operation import OrchestrationSettings
from tasks.catalog import catalog

Call = tuple[Task[..., Any], tuple[Any, ...]]


class ConfiguredTaskRunner(ThreadPoolTaskRunner[Any]):
    """Threads, or Dask where the settings say so: Prefect duplicates a flow's runner each time the flow starts."""

    def duplicate(self) -> Any:
        """The runner of one flow run. Raises SettingsError where Dask isn't installed."""
        return dask_runner(catalog().params().orchestration) if on_dask() else super().duplicate()


def on_dask() -> bool:
    """Whether the settings choose Dask; not where they can't be read, which the run itself will report."""
    try:
        return catalog().params().orchestration.task_runner == "dask"
    except AmnesiacError:
        return False


def dask_runner(settings: OrchestrationSettings) -> TaskRunner[Any]:
    """A runner on the cluster at `address`, else on processes of this machine, which end with the flow.

    The cluster listens on loopback and writes nothing that it is sent to disk. Raises SettingsError.
    """
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"orchestration.task_runner is dask, and {error.name} isn't installed: pip install 'amnesiac[dask]', or "
            "set threads"
        ) from error
    if settings.address is not None:
        return DaskTaskRunner(address=settings.address)
    cluster = {
        "n_workers": settings.workers, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0", "memory_limit": 0, "local_directory": str(_private_folder()),
    }  # fmt: skip
    return DaskTaskRunner(cluster_kwargs=cluster)


def at_once(calls: Sequence[Call], each: Callable[[], None] = lambda: None) -> list[Any]:
    """Submit tasks to the flow's runner and wait; their results in order. `each` is called as one after the other ends.

    Raises what the first failing one raised, once all have ended.
    """
    futures = [task.submit(*arguments) for task, arguments in calls]
    for _ in as_completed(futures):
        each()
    return [_result(future) for future in futures]


def in_order(calls: Iterable[Call], ahead: int) -> Iterator[Any]:
    """Submit tasks to the flow's runner, at most `ahead` beyond what was asked for; their results in order.

    Raises what the first failing one raised, once all that were submitted have ended.
    """
    pending: deque[Any] = deque()
    try:
        for task, arguments in calls:
            pending.append(task.submit(*arguments))
            if len(pending) >= ahead:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        for future in pending:
            future.wait()


def spread(calls: Sequence[Call]) -> list[Any]:
    """At once on Dask; elsewhere one after the other in this very thread (PyTorch's generator is a process's own)."""
    return at_once(calls) if on_dask() else [task(*arguments) for task, arguments in calls]


def shared_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths, which tasks have written; raises StoreError where one isn't there."""
    found = tuple(paths)
    if missing := [path for path in found if not path.exists()]:
        raise StoreError(
            f"{missing[0]} isn't there, though its task has ended: Dask's workers must see this project's folder with "
            "the same data, settings and versions. Set AMNESIAC_PROJECT to it where they start, or remove "
            "orchestration.address"
        )
    return found


def _result(future: Any) -> Any:
    try:
        return future.result()
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # of distributed, which needn't be installed
            raise
        raise AmnesiacError(
            f"Dask's workers were killed by a task ({error}), most likely for want of memory: set fewer "
            "orchestration.workers and run again; what is done is kept"
        ) from error


def _private_folder() -> Path:
    folder = catalog().root / ".prefect" / "dask"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
