"""A stage of dvc.yaml as a context: one writer at a time, DVC asked before and told after."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.catalog import catalog
from tasks.locking import single_writer
from tasks.versioning import record_stages, stale_stages, under_dvc

_WAIT_SECONDS = 600.0
_held: list[str] = []


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Hold the project's writer lock; inside a run of this process that holds it already, nothing more happens."""
    if _held:
        yield
        return
    with single_writer(catalog().scratch.parent, timeout=_WAIT_SECONDS):
        _held.append(what)
        try:
            yield
        finally:
            _held.pop()


@contextmanager
def stage(name: str, force: bool = False, before: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Yield whether the stage has to run; what it then wrote is recorded in dvc.lock unless it raised.

    `before` runs under the lock, before DVC is asked. Run by DVC itself, a stage always has to run, DVC records it, and
    `before` doesn't run: what DVC has compared must not change, or an old commit couldn't be reproduced.
    Raises SettingsError, and StoreError naming the stage that has to run first.
    """
    catalog().params()
    with writing(name):
        if under_dvc():
            catalog().check_inputs(name)
            yield True
            return
        before()
        due = force or name in stale_stages(catalog().root)
        if due:
            catalog().check_inputs(name)
        yield due
        if due:
            record_stages(catalog().root, [name])
