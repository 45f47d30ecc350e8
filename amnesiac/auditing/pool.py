"""A pool of processes that train members: each loads the setup once, and computes with the settings' threads."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from amnesiac.auditing.ensemble import keep_member
from amnesiac.auditing.setup import Member, Setup

_loaded: list[Setup] = []


@dataclass(frozen=True)
class MemberPool:
    """Where members are trained.

    folder:  of the ensemble;  scratch: of spools and ledgers, a folder a member
    """

    executor: ProcessPoolExecutor
    folder: Path
    scratch: Path

    def train(self, member: Member) -> "Future[float]":
        """Train and write one member; the future's result is the CPU seconds that it took."""
        return self.executor.submit(_train, member, self.folder, self.scratch)


@contextmanager
def member_pool(workers: int, load: Callable[[], Setup], folder: Path, scratch: Path) -> Iterator[MemberPool]:
    """A pool of `workers` processes; `load` (a function of a module, or a partial of one) is called in each.

    When the block ends, by an error too, members that wait are not begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(load,))
    try:
        yield MemberPool(executor, folder, scratch)
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(load: Callable[[], Setup]) -> None:
    setup = load()
    torch.set_num_threads(setup.training.threads)
    _loaded[:] = [setup]


def _train(member: Member, folder: Path, scratch: Path) -> float:
    import time

    started = time.process_time()
    keep_member(folder, _loaded[0], member, scratch)
    return time.process_time() - started
