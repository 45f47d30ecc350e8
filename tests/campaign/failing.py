"""Let the disk fail in a deletion: `failing.py BASE WORK PLAN`, JSON on stdout.

PLAN: {"how": "enospc" | "eio" | "tmpfs" | "sessions", "every": K}

enospc  from the k-th change on nothing can be written (removing and renaming go on working), as on a full disk
eio     the k-th change fails once
sessions  before the k-th statement of the journal on a server the server ends the journal's sessions
tmpfs   a real file system of so few pages (WORK is its mount point; run under `unshare -rm`): native code runs out, too
"""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg

from amnesiac.errors import AmnesiacError
from tests.campaign.killing import Trials, armed
from tests.publication.kills import forked, seen

FREEING = {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
SAID = {errno.ENOSPC: "database or disk is full", errno.EIO: "disk I/O error"}


def failure(number, lasting):
    """What happens instead of a kill."""

    def act(kind):
        if lasting:
            seen["kill_at"] = seen["count"] + 1
        if lasting and kind in FREEING:
            return
        if kind == "sqlite":
            raise sqlite3.OperationalError(SAID[number])
        raise OSError(number, os.strerror(number), "injected")

    return act


def attempted(work):
    """The error that `work` ends with."""
    try:
        work()
    except Exception as error:
        return {"kind": type(error).__name__, "ours": isinstance(error, AmnesiacError), "said": str(error)}
    return None


def end_sessions(kind):
    """What happens instead of a kill, on a connection that isn't counted."""
    if kind != "postgresql":
        seen["kill_at"] += 1  # the next change, until it is a statement
        return
    with psycopg.connect(os.environ["AMNESIAC_TEST_SERVER"], application_name="the campaign") as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'amnesiac'")


class Failures(Trials):
    """Trials in which the disk fails and then works again."""

    def failed(self, point, work, mend=lambda: None):
        project = self.copy()
        try:
            error = forked(lambda: attempted(lambda: work(project)))
            mend()
            found, end = forked(lambda: [self.seen(project), self.finished(project)])
            after = json.loads(json.dumps(self.after))
            wrong = self.wrong(found) + [
                f"{key} differs afterwards" for key in after if end["all"].get(key) != after[key]
            ]
            done = found[0] == json.loads(json.dumps(self.after_visible))
            return {"point": point, "error": error, "published": done, "wrong": wrong}
        finally:
            shutil.rmtree(project.root)

    def injected(self, number, lasting, every):
        act, total = failure(number, lasting), self.count("mutations")
        for point in range(1, total + 1, every):
            yield self.failed(point, lambda p, k=point: armed(lambda: self.do(p), k, act))

    def cut_off(self, every):
        total = self.count("mutations")
        for point in range(1, total + 1, every):
            yield self.failed(point, lambda p, k=point: armed(lambda: self.do(p), k, end_sessions))

    def full(self, every):
        """Ever larger file systems, until a deletion fits."""
        mount, kilobytes = self.work, used(self.base.root)
        while True:
            resize(mount, 1 << 20)
            yield self.failed(
                kilobytes, lambda p, k=kilobytes: narrow(self, mount, k, p), lambda: resize(mount, 1 << 20)
            )
            if self.fitted:
                return
            kilobytes += 4 * every

    fitted = False


def narrow(trials, mount, kilobytes, project):
    resize(mount, kilobytes)
    trials.do(project)


def used(folder):
    """Pages of a tmpfs, in KB."""
    paths = [folder, *folder.rglob("*")]
    return sum(-(-path.stat().st_size // 4096) * 4 for path in paths if path.is_file()) + 4 * 2


def resize(mount, kilobytes):
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(mount)], check=True)


def main(base, work, plan):
    if plan["how"] == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "campaign", str(work)], check=True)
    trials, done = Failures(base, work, "deletion"), []
    if plan["how"] == "tmpfs":
        shutil.rmtree(work / "whole")
    numbers = {"enospc": (errno.ENOSPC, True), "eio": (errno.EIO, False)}
    how = plan["how"]
    ways = {"tmpfs": trials.full, "sessions": trials.cut_off}
    run = ways[how](plan["every"]) if how in ways else trials.injected(*numbers[how], plan["every"])
    for trial in run:
        done.append(trial)
        trials.fitted = trial["error"] is None
    print(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
