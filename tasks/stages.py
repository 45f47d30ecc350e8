"""A stage of dvc.yaml as a context: one writer at a time, DVC asked before and told after."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tasks.catalog import catalog
from tasks.locking import WriterBusy, single_writer
from tasks.versioning import VersioningError, record_stages, stale_stages, under_dvc

_WAIT_SECONDS = 600.0
_log = logging.getLogger("amnesiac.stages")
_held: list[str] = []


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Hold the project's writer lock; inside a run of this process that holds it already, nothing more happens."""
    if _held:
        yield
        return
    with _patient_lock():
        _held.append(what)
        try:
            yield
        finally:
            _held.pop()


def when_idle(action: Callable[[], object]) -> None:
    """Do something small under the writer lock; leave it out if a run is at work, which will do it itself."""
    try:
        with single_writer(catalog().scratch.parent):
            action()
    except WriterBusy:
        _log.info("a run is at work: it, or the next one, takes this up")


def is_stale(name: str) -> bool:
    """Whether DVC would run a stage for reasons of its own."""
    return name in stale_stages(catalog().root)


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
        due = force or is_stale(name)
        if not due:
            yield False
            return
        catalog().check_inputs(name)
        settings = catalog().params_file.read_bytes()
        yield True
        _refuse_changed_settings(name, settings)
        record_stages(catalog().root, [name])


def _refuse_changed_settings(name: str, before: bytes) -> None:
    """DVC records the params.yaml of now, so it must be the one that was used."""
    if catalog().params_file.read_bytes() != before:
        raise VersioningError(
            f"params.yaml changed while {name} ran: what it wrote is not recorded. Run `amnesiac {name}` again"
        )


@contextmanager
def _patient_lock() -> Iterator[None]:
    folder = catalog().scratch.parent
    with ExitStack() as stack:
        try:
            stack.enter_context(single_writer(folder))
        except WriterBusy as error:
            _log.warning("%s. Waiting up to %.0f s", error, _WAIT_SECONDS)
            stack.enter_context(single_writer(folder, timeout=_WAIT_SECONDS))
        yield
