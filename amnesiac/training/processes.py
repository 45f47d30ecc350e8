"""Training on several processes: start them, listen to them, end them. Or be one of those that torchrun started.

They are forked from a server that has imported torch (multiprocessing's forkserver), find each other through a file
store in a private folder, and talk over the loopback interface: gloo on CPUs, NCCL between GPUs. Training data lie in
shared memory once. The process that asks trains nothing itself: it hears progress and errors, and seals.
"""

import atexit
import multiprocessing.process
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import load, save
from torch import Tensor

from amnesiac.errors import InputError, PeerLost, ProcessDied, SettingsError, StoreError
from amnesiac.progress import Progress, silent
from amnesiac.settings import TrainingSettings
from amnesiac.training.group import ALONE, Group
from amnesiac.training.spec import TrainingResult


@dataclass(frozen=True)
class Samples:
    """Training data as they are passed on: `[n, c, h, w]` and `[n]`, in shared memory."""

    inputs: Tensor
    labels: Tensor


Work = Callable[[Group, Progress], TrainingResult]
_LONGEST = timedelta(days=1)
"""A process waits so long for the others: they are watched, so this ends nothing that goes on."""
_PRELOADED = ["__main__", __name__, "torch._dynamo"]
"""Imported once for all processes; the last one torch imports when the first optimiser is made, for seconds."""
_GRACE = 10.0
"""Seconds in which the others say why they end, once one has."""


def group_of(training: TrainingSettings) -> Group:
    """The group that this process is in: one alone, unless torchrun started it (or the caller's own program set
    torch.distributed up). Raises SettingsError where that group has another size than the settings say.
    """
    if not dist.is_available() or not (dist.is_initialized() or dist.is_torchelastic_launched()):
        return ALONE
    if not dist.is_initialized():
        _join_torchrun(training.device)
    group = Group(dist.get_rank(), dist.get_world_size())
    if group.count != training.processes:
        raise SettingsError(
            f"{group.count} processes were started (torchrun), and training.processes is {training.processes}: "
            "give both the same number, it is part of the result"
        )
    return group


def together(training: TrainingSettings, work: Work, progress: Progress = silent) -> TrainingResult:
    """Do `work` in every process of the settings' number, and give the first one's result.

    In a process of torchrun's, its own result: they are alike. `work` gets its group, and who listens to progress; it
    must be a partial of a module's function with arguments that can be passed on. Raises what the process raised that
    failed first, and ProcessDied where one was killed; no other is left running.
    """
    group = group_of(training)
    if group.count == training.processes:
        return work(group, progress if group.leads else silent)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="amnesiac-processes-") as folder:
        members = _start(training, work, Path(folder) / "store")
        try:
            _listen(members, progress)
            return _result(members, started)
        finally:
            _end(members)


def device_of(training: TrainingSettings, group: Group) -> str:
    """Where a process computes: of several processes on GPUs, each has its own."""
    if training.device != "cuda" or group.count == 1:
        return training.device
    local = int(os.environ.get("LOCAL_RANK", group.rank))
    if local >= torch.cuda.device_count():
        raise SettingsError(
            f"training.processes {group.count} on {torch.cuda.device_count()} GPUs: each process needs one of its own"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


@dataclass
class _Member:
    """A process that was started, and what was heard of it.

    message: its last, None before it ends, or where it ended without one;  ended: its pipe is closed
    """

    rank: int
    process: multiprocessing.process.BaseProcess
    pipe: "connection.Connection[Any, Any]"
    message: tuple[str, Any] | None = None
    ended: bool = False

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self.ended and (self.message is None or self.message[0] == "failed")


def _start(training: TrainingSettings, work: Work, store: Path) -> list[_Member]:
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    members: list[_Member] = []
    try:
        for rank in range(training.processes):
            mine, its = context.Pipe()
            process = context.Process(target=_member, args=(rank, training, store, its, work), daemon=False)
            members.append(_Member(rank, process, mine))
            _started(process)
            its.close()
    except BaseException:
        _end(members)
        raise
    return members


def _started(process: multiprocessing.process.BaseProcess) -> None:
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"training.processes: the model's factory, or the data, can't be handed to another process ({error}). "
            "Use a function of a module (or functools.partial of one), not a lambda or one inside another function"
        ) from error
    except RuntimeError as error:
        raise StoreError(
            f"the training data can't be put into shared memory ({error}): make /dev/shm larger "
            "(docker run --shm-size), or set training.processes to 1"
        ) from error


def _listen(members: Sequence[_Member], progress: Progress) -> None:
    """Listen until all have said their last; once one has failed, the others have a grace to do so."""
    until: float | None = None
    while waiting := [member for member in members if not member.ended and member.message is None]:
        left = None if until is None else max(0.0, until - time.monotonic())
        ready = connection.wait([member.pipe for member in waiting], left)
        if not ready and until is not None:
            break
        for member in waiting:
            if member.pipe in ready:
                _hear(member, progress)
        if until is None and any(member.failed for member in members):
            until = time.monotonic() + _GRACE


def _hear(member: _Member, progress: Progress) -> None:
    try:
        kind, content = member.pipe.recv()
    except (EOFError, ConnectionResetError):
        member.ended = True
        return
    if kind == "progress":
        progress(*content)
        return
    member.message = (kind, content)
    member.ended = kind == "failed"


def _result(members: Sequence[_Member], started: float) -> TrainingResult:
    """The first one's, whose seconds are joined by those of starting them; else the error that the others' follow
    from.
    """
    failed = [member for member in members if member.failed]
    if failed:
        raise min(map(_error, failed), key=lambda error: isinstance(error, PeerLost))
    message = members[0].message
    assert message is not None
    content = message[1]
    weights, initial = load(content["weights"]), load(content["initial"])
    seconds = content["seconds"] + time.perf_counter() - started - content["worked"]
    return TrainingResult(weights, initial, content["history"], seconds)


def _error(member: _Member) -> BaseException:
    if member.message is not None:
        error: BaseException = member.message[1]
        return error
    member.process.join()
    code = member.process.exitcode or 0
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return ProcessDied(
        f"process {member.rank} of the training {how} and said nothing (out of memory?). The others were ended too: "
        "train again with --resume to go on from the last checkpoint"
    )


def _end(members: Sequence[_Member]) -> None:
    """Let those go that are done, end the others."""
    for member in members:
        if member.process.pid is None:
            continue
        if member.message is None:
            member.process.terminate()
        member.pipe.close()  # what a process that is done waits for
        member.process.join(_GRACE)
        if member.process.is_alive():
            member.process.kill()
            member.process.join()


def _member(
    rank: int, training: TrainingSettings, store: Path, pipe: "connection.Connection[Any, Any]", work: Work
) -> None:
    """A process's whole life. It says its last, and stays until it is let go: the others may still be reading."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked hears it too, and ends this one
    _end_with_parent()
    tell: Progress = lambda *what: pipe.send(("progress", what))  # noqa: E731
    try:
        _use_loopback()
        group = Group(rank, training.processes)
        dist.init_process_group(
            _backend(training.device),
            store=dist.FileStore(str(store), training.processes),  # type: ignore[attr-defined]
            rank=rank,
            world_size=training.processes,
            timeout=_LONGEST,
        )
        started = time.perf_counter()
        result = work(group, tell if group.leads else silent)
        pipe.send(("done", _content(result, time.perf_counter() - started) if group.leads else None))
        connection.wait([pipe])
        status = 0
    except BaseException as error:  # handed to the process that asked  # noqa: BLE001
        pipe.send(("failed", _passed_on(error)))
        status = 1
    os._exit(status)  # at once: the others' connections end, nothing waits for them


def _content(result: TrainingResult, worked: float) -> dict[str, Any]:
    return {
        "weights": save(result.weights),
        "initial": save(result.initial),
        "history": result.history,
        "seconds": result.seconds,
        "worked": worked,
    }


def _passed_on(error: BaseException) -> BaseException:
    """The error itself if it can be passed on, else one that says the same."""
    try:
        passed: BaseException = pickle.loads(pickle.dumps(error))  # noqa: S301 - nobody else's bytes
    except Exception:  # noqa: BLE001 - classes of anybody's making, which may raise anything
        passed = ProcessDied(f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}")
    return passed


def _end_with_parent() -> None:
    """A killed process leaves nobody behind who writes where the next one will."""
    parent = multiprocessing.process.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


def _use_loopback() -> None:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback is not None:
            os.environ.setdefault(variable, loopback)


def _backend(device: str) -> str:
    """Objects always go over gloo; gradients where they lie."""
    return "gloo" if torch.device(device).type == "cpu" else "cpu:gloo,cuda:nccl"


def _join_torchrun(device: str) -> None:
    dist.init_process_group(_backend(device), timeout=_LONGEST)
    atexit.register(dist.destroy_process_group)
