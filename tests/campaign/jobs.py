"""Concurrent jobs: `jobs.py ROOT JOBS SEED`. Each files requests with overlapping ids and runs when nobody else does.

Prints what was filed, and what came of it.
"""

import fcntl
import json
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.campaign.cycle import IDS, Cycle
from tests.publication.kills import forked

ROUNDS = 3


@contextmanager
def writer(project, wait):
    """The one writer, by a lock as tasks/locking.py holds it; yields whether it is ours."""
    descriptor = os.open(project.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def wanted(seed, job, turn):
    """A request's name and ids; every third is one that all jobs file."""
    if turn == 2:
        return "shared", [IDS[0], IDS[20]]
    generator = random.Random(f"{seed} {job} {turn}")
    return f"job-{job}-{turn}", sorted(generator.sample(IDS[:16], 2))


def job(project, seed, number):
    """File and run in turn; how often somebody else was at work."""
    busy = 0
    for turn in range(ROUNDS):
        name, ids = wanted(seed, number, turn)
        project.file(*ids, name=name)
        with writer(project, wait=False) as mine:
            if mine:
                project.run()
            else:
                busy += 1
    return busy


def at_once(project, jobs, seed):
    """Fork all jobs first, so that they do run at the same time."""
    children = []
    for number in range(jobs):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                busy = job(project, seed, number)
                (project.root.parent / f"busy-{number}").write_text(str(busy))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def last(project):
    with writer(project, wait=True):
        while project.run():
            pass
    history = [list(batch.request_ids) for batch in project.batches.history() if not batch.ended]
    return project.everything() | {"history": history}


def main(root, jobs, seed):
    project = Cycle(root)
    codes = at_once(project, jobs, seed)
    busy = sum(int(path.read_text()) for path in root.parent.glob("busy-*"))
    filed = dict(wanted(seed, number, turn) for number in range(jobs) for turn in range(ROUNDS))
    print(json.dumps({"codes": codes, "busy": busy, "filed": filed, "end": forked(lambda: last(project))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
