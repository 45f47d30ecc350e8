"""Kill a deletion again and again, on copies: `killing.py BASE WORK PLAN`, JSON on stdout.

A process of its own, which imports once and forks for each trial. PLAN is JSON:

    {"how": "mutations" | "steps" | "lines" | "times" | "twice", "what": "deletion" | "seal", "most": N, "seed": S}

mutations  before each opening for writing, write, fsync, rename, removal, new folder and SQL statement that changes
steps      after a training step
lines      at a line of our own code, evenly spread: between native calls, which raise no audit events
times      at a random moment: inside of native calls, too (tensorstore, SQLite, OpenSSL)
twice      before a change, and again before a change of the recovery
"""

import importlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import psycopg

from amnesiac.durable import sweep
from amnesiac.errors import AmnesiacError
from tests.campaign.cycle import Cycle, digest, notice
from tests.publication.kills import Journalled, die, forked, hook, mutation, seen

OURS = f"{Path(__file__).parents[2] / 'amnesiac'}{os.sep}"


def counted(call, kind):
    def wrapped(*arguments, **named):
        mutation(kind)
        return call(*arguments, **named)

    return wrapped


def armed(work, point, act=die):
    """Do `work` in this process, in which `act` happens before its `point`-th change; how many changes it made."""
    sqlite3.connect = lambda *a, real=sqlite3.connect, **k: real(*a, **k, factory=Journalled)
    psycopg.Cursor.execute = counted(psycopg.Cursor.execute, "postgresql")
    psycopg.Connection.commit = counted(psycopg.Connection.commit, "postgresql")
    os.write, os.fsync = counted(os.write, "os.write"), counted(os.fsync, "os.fsync")
    sys.addaudithook(hook)
    seen.update(count=0, kill_at=point, on=True, act=act)
    try:
        work()
    finally:
        seen["on"] = False
    return seen["count"]


def traced(work, point):
    """Do `work`, killed at the `point`-th line of our own code; how many lines there were."""
    lines = [0]

    def line(frame, event, argument):
        if event == "line":
            lines[0] += 1
            if lines[0] == point:
                die("line")
        return line

    sys.settrace(lambda frame, event, argument: line if frame.f_code.co_filename.startswith(OURS) else None)
    try:
        work()
    finally:
        sys.settrace(None)
    return lines[0]


def timed(work, moment):
    """Do `work`, killed so many seconds after its start by a timer of the kernel; how long it took."""
    start = time.perf_counter()
    if moment > 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        child = os.fork()
        if child == 0:  # a process of its own keeps the time: no Python of the victim has to run for its death
            time.sleep(moment)
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        work()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    else:
        work()
    return time.perf_counter() - start


def stepped(work, point):
    """Do `work`, killed after its `point`-th training step; how many there were."""
    steps = [0]

    def told(stage, done, total):
        if stage == "train":
            steps[0] += 1
            if steps[0] == point:
                die(stage)

    notice[0] = told
    work()
    return steps[0]


RUNNERS = {"steps": stepped, "mutations": armed, "lines": traced, "times": timed, "twice": armed}


class Trials:
    """Trials on copies of a project; `what`: the deletion of what is pending, or the sealing of a trained run."""

    def __init__(self, base, work, what):
        self.base, self.work, self.what = Cycle(base), work, what
        whole = self.copy("whole")
        self.before = forked(lambda: self.visible(whole))
        preload(forked(lambda: [self.do(whole), sorted(sys.modules)])[1])
        self.after = forked(lambda: self.all(whole))

    def copy(self, name="trial"):
        return self.base.copy(self.work / name)

    def do(self, project):
        sweep(project.root)  # as every command of the pipeline begins
        (project.seal if self.what == "seal" else project.run)()

    def visible(self, project):
        """What decides between before and after: of a sealing the ledger's manifest, which is renamed in with it."""
        return (project.root / "ledger").exists() if self.what == "seal" else project.found()

    def all(self, project):
        if self.what == "deletion":
            return project.everything()
        keep = [path for path in sorted(project.root.rglob("*")) if path.is_file()]
        return {str(path.relative_to(project.root)): digest(path) for path in keep}

    def count(self, how):
        """Points of an undisturbed run; of times its seconds."""
        project = self.copy("counted")
        return forked(lambda: RUNNERS[how](lambda: self.do(project), -1))

    def finished(self, project):
        """Do it again; what is left then, and the seconds and CPU seconds that took."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            self.do(project)
        except AmnesiacError as error:
            return {"all": {f"{type(error).__name__}: {error}": ""}, "seconds": (0.0, 0.0)}
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        return {"all": self.all(project), "seconds": seconds}

    def trial(self, how, point, second=None):
        """Kill, look, go on; what was wrong."""
        project = self.copy()
        try:
            killed = forked(lambda: RUNNERS[how](lambda: self.do(project), point)) is None
            wrong = []
            if second:
                wrong += self.wrong(forked(lambda: self.seen(project)))
                forked(lambda: armed(lambda: self.do(project), second))
            found, end = forked(lambda: [self.seen(project), self.finished(project)])
            wrong += self.wrong(found)
            after = json.loads(json.dumps(self.after))
            wrong += [f"{key} differs afterwards" for key in after if end["all"].get(key) != after[key]]
            wrong += [f"{key} is left over" for key in end["all"].keys() - after.keys()]
            return {"point": point, "killed": killed, "wrong": wrong, "seconds": end["seconds"]}
        finally:
            shutil.rmtree(project.root)

    def seen(self, project):
        try:
            return [self.visible(project), self.early(project)]
        except AmnesiacError as error:
            return [f"{type(error).__name__}: {error}", False]

    def wrong(self, found):
        """A reader sees before or after; no key goes, and no receipt is written, before the version is there."""
        states = [json.loads(json.dumps(state)) for state in (self.before, self.after_visible)]
        problems = [] if found[0] in states else [f"neither before nor after: {found[0]}"]
        return problems + (["erased before it was published"] if found[0] == states[0] and found[1] else [])

    @property
    def after_visible(self):
        return True if self.what == "seal" else {key: self.after[key] for key in self.before}

    def early(self, project):
        if self.what == "seal":
            return False
        before = self.base
        return project.alive() != before.alive() or len(project.chain.numbers()) != len(before.chain.numbers())


def preload(names):
    """Import here what a child imported, so that not every child does."""
    for name in names:
        if name not in sys.modules and name != "__main__" and importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)


def points(how, total, most, generator):
    """Which points to take: all, or `most` of them, evenly spread (of times: drawn)."""
    if how == "times":
        return [generator.uniform(0, total) for _ in range(most)]
    if how == "twice":
        return [generator.randint(1, total) for _ in range(most)]
    step = max(1.0, total / most)
    return sorted({1 + int(k * step) for k in range(min(most, total)) if int(k * step) < total} | {total})


def main(base, work, plan):
    trials, generator = Trials(base, work, plan["what"]), random.Random(plan["seed"])
    how = plan["how"]
    total = trials.count(how)
    chosen = points(how, total, plan["most"] or total, generator)
    second = [generator.randint(1, total) for _ in chosen] if how == "twice" else [None] * len(chosen)
    done = [trials.trial(how, point, again) for point, again in zip(chosen, second, strict=True)]
    print(json.dumps({"total": total, "trials": done}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
