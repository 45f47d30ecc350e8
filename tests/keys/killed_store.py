"""Run an operation on copies of a key store, each time killed a file-system change later; a process of its own.

    python killed_store.py OPERATION COPIES STORE...

The k-th copy of a store lies in COPIES/NAME/k. Its process ends by SIGKILL just before its k-th change (an audit
hook sees opening for writing, renaming, removing, mkdir; `os.write` and `os.fsync` are counted too); the last one runs
to its end. Forked, so that the imports are paid once.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from amnesiac.keys import LocalKeyStore

GONE = [1, 4, 5]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = {
    "create": lambda folder: LocalKeyStore(folder / "new", create=True).ensure(["a", "b"]),
    "ensure": lambda folder: LocalKeyStore(folder).ensure(["x", "name-2", "y"]),
    "destroy": lambda folder: LocalKeyStore(folder).destroy(np.array(GONE)),
    "open": lambda folder: LocalKeyStore(folder).epoch,
}


def kill_before(change: int) -> None:
    """Let this process be killed before its `change`-th change of the file system."""
    left = [change]

    def count() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def hook(event: str, arguments: tuple) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if opened or event in {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"}:
            count()

    def counted(call):
        def wrapped(*arguments):
            count()
            return call(*arguments)

        return wrapped

    os.write, os.fsync = counted(os.write), counted(os.fsync)
    sys.addaudithook(hook)


def run(operation: str, folder: Path, change: int) -> bool:
    """Whether the operation was killed before its end."""
    child = os.fork()
    if child == 0:
        kill_before(change)
        OPERATIONS[operation](folder)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"{operation} failed before change {change}"
    return killed


def kill_everywhere(operation: str, copies: Path, store: Path) -> None:
    change = 0
    while True:
        folder = copies / store.name / f"{change:03d}"
        shutil.copytree(store, folder)
        if not run(operation, folder, change):
            return
        change += 1


if __name__ == "__main__":
    for name in sys.argv[3:]:
        kill_everywhere(sys.argv[1], Path(sys.argv[2]), Path(name))
