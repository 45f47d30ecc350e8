"""Packs and appends to a spool on a thread of its own: training goes on meanwhile.

What was seen of some mini-batches is handed over as one group, so that a small model, whose steps take less than a
millisecond, pays Python's overhead once a group.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor, nn

from amnesiac.capture.attribution import Step
from amnesiac.capture.packing import Visits, packed
from amnesiac.capture.spool import Spool

GROUP_BYTES = 8_000_000
"""A group is handed over once it holds so much, ..."""
GROUP_STEPS = 16
"""... or so many steps."""
WAITING = 2
"""Groups that may wait; then training does, so that memory holds no more than WAITING + 2 groups."""

Job = Callable[[], object]
Stepped = tuple[Step, Tensor | None, Sequence[Tensor]]


class SpoolWriter:
    """Everything is written in the order in which it was handed over.

    An error of the writing thread (a full disk, a layer that can't be packed) is raised by the next call, once; what
    came after it is not written.
    """

    def __init__(self, spool: Spool, layers: Mapping[str, nn.Module]) -> None:
        """Write to `spool`, which nobody else may write to; `layers` by name, as they were tapped."""
        self._spool, self._layers = spool, layers
        self._visits: list[Visits] = []
        self._steps: list[Stepped] = []
        self._held = 0
        self._jobs: queue.Queue[Job | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._failed = False
        self._acted = threading.Event()
        self._acted.set()

    def visits(self, visits: Visits) -> None:
        """A mini-batch."""
        self._visits.append(visits)
        self._held += visits.nbytes
        if self._held >= GROUP_BYTES:  # within a step too: parts of a mini-batch that is too large to be held
            self._hand_over()

    def step(self, step: Step, preconditioner: Tensor | None, updates: Sequence[Tensor]) -> None:
        """The end of an optimiser step."""
        self._steps.append((step, preconditioner, updates))
        self._held += sum(values.nbytes for values in updates) + (
            0 if preconditioner is None else preconditioner.nbytes
        )
        if self._held >= GROUP_BYTES or len(self._steps) >= GROUP_STEPS:
            self._hand_over()

    def leave_out(self, step: int) -> None:
        """Take back the mini-batches of a step that wasn't taken, also those that were handed over."""
        self._visits = [visits for visits in self._visits if visits.step != step]
        self._hand_over()
        self._put(partial(self._spool.drop_visits, step))

    def then(self, action: Job) -> None:
        """Do `action` on the writing thread once everything so far is written; waits for the former action, so that
        training is never more than one checkpoint ahead of the disk.
        """
        self._hand_over()
        if not self._failed:  # then nothing is done any more
            self._acted.wait()
        self._acted.clear()
        self._put(partial(self._act, action))

    def drain(self) -> None:
        """Wait until everything so far is written."""
        self._hand_over()
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Write what is left and end the thread."""
        try:
            self.drain()
        finally:
            if self._thread is not None:
                self._jobs.put(None)
                self._thread.join()
                self._thread = None

    def _hand_over(self) -> None:
        if self._visits or self._steps:
            self._put(partial(self._write, self._visits, self._steps))
            self._visits, self._steps, self._held = [], [], 0

    def _put(self, job: Job) -> None:
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="spool writer", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if not self._failed:
                    job()
            except BaseException as error:  # handed to the training thread  # noqa: BLE001
                self._error, self._failed = error, True
                self._acted.set()
            finally:
                del job  # holds tensors, and the next one may be long in coming
                self._jobs.task_done()

    def _act(self, action: Job) -> None:
        action()
        self._acted.set()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, visits: Sequence[Visits], steps: Sequence[Stepped]) -> None:
        layout = self._spool.layout
        if visits and layout is not None:
            samples, kept = np.concatenate([v.samples for v in visits]), np.concatenate([v.kept for v in visits])
            numbers = np.repeat([v.step for v in visits], [len(v.samples) for v in visits])
            self._spool.append_visits(samples, kept, numbers, packed(layout, self._layers, visits))
        for step, preconditioner, updates in steps:
            self._spool.append_step(step, preconditioner, updates)
