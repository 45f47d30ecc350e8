"""Kill a batch at every change that it makes on disk: `kills.py PROJECT WORK`, JSON on stdout.

A process of its own, which imports once and forks for each point: before the k-th opening of a file for writing,
rename, removal, new folder, or statement of the journal's database, the child kills itself with SIGKILL. Then another
child runs again, which recovers, and says what it ends with.
"""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

from tests.publication.tiny import Tiny

MUTATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def die(kind):
    os.kill(os.getpid(), signal.SIGKILL)


seen = {"count": 0, "kill_at": -1, "on": False, "act": die}


def mutation(kind):
    """One more change; at the chosen one `act` happens (tests/campaign lets other things happen than a kill)."""
    if seen["on"]:
        seen["count"] += 1
        if seen["count"] == seen["kill_at"]:
            seen["act"](kind)


def hook(event, arguments):
    if event in MUTATIONS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
        mutation(event)


class Counting(sqlite3.Cursor):
    def execute(self, statement, *parameters):
        if statement.split()[0] in ("BEGIN", "INSERT", "UPDATE", "DELETE"):
            mutation("sqlite")
        return super().execute(statement, *parameters)


class Journalled(sqlite3.Connection):
    """Counts what changes the database, up to the very commit."""

    def cursor(self, factory=Counting):
        return super().cursor(factory)

    def commit(self):
        mutation("sqlite")
        super().commit()


def forked(work):
    """What `work` returns in a child process, None if the child was killed; anything else it does is an error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert os.waitstatus_to_exitcode(status) == 0, said
    return json.loads(said)


def batch(project, kill_at):
    """One batch, killed at a point (-1: at none); how many points there were."""
    sqlite3.connect = lambda *a, real=sqlite3.connect, **k: real(*a, **k, factory=Journalled)
    sys.addaudithook(hook)
    seen.update(count=0, kill_at=kill_at, on=True)
    project.run()
    return seen["count"]


def state(project):
    """What a reader sees."""
    head = project.head()
    weights = project.weights()
    digest = weights and hashlib.sha256(b"".join(weights[name] for name in sorted(weights))).hexdigest()
    return {"version": head and head.version, "weights": digest, "requests": list(head.requests) if head else []}


def again(project):
    """Run once more, and describe everything that is left."""
    project.run()
    hidden = [str(path.relative_to(project.root)) for path in project.root.rglob(".*")]
    batches = [[batch.state, batch.ended] for batch in project.batches.history()]
    return state(project) | {"batches": batches, "versions": list(project.store.ids()), "hidden": hidden}


def main(base, work):
    whole = Tiny(base).copy(work / "whole")
    before = forked(lambda: state(whole))
    points = forked(lambda: batch(whole, -1))
    after = forked(lambda: again(whole))
    trials = []
    for point in range(1, points + 1):
        project = Tiny(base).copy(work / "killed")
        assert forked(lambda p=project, k=point: batch(p, k)) is None, f"nothing happened at point {point}"
        found = forked(lambda p=project: state(p))
        trials.append({"point": point, "found": found, "again": forked(lambda p=project: again(p))})
        shutil.rmtree(project.root)
    print(json.dumps({"points": points, "before": before, "after": after, "trials": trials}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
