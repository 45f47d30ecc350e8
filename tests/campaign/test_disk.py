"""A disk that is full or fails: a clear error, nothing half published, and the next try succeeds."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from tests.campaign.results import ROOT
from tests.campaign.sizes import sizes

CLEAR = ("ENOSPC", "No space left", "is full", "Input/output error", "disk I/O", "File too large", "injected")


def judge(trials, record, name):
    failed = [trial for trial in trials if trial["error"]]
    unclear = [t for t in failed if not (t["error"]["ours"] or any(word in t["error"]["said"] for word in CLEAR))]
    wrong = [trial for trial in trials if trial["wrong"]]
    kinds = Counter(trial["error"]["kind"] for trial in failed)
    record(
        4, name, not wrong and not unclear, failures=len(trials), reported=len(failed), unclear=len(unclear),
        before=sum(not trial["published"] for trial in failed), wrong_results=len(wrong), errors=dict(kinds),
    )  # fmt: skip
    assert not wrong, wrong[:3]
    assert not unclear, unclear[:3]
    assert failed
    return failed


@pytest.mark.parametrize("how", ["enospc", "eio"])
@sizes(80, 6)
def test_the_disk_fails_at_every_kth_change(pending, process, tmp_path, record, how, size):
    judge(process("failing", pending.root, tmp_path, json.dumps({"how": how, "every": size})), record, how)


def may_mount():
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "campaign", "/mnt"]
    return shutil.which("unshare") and subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no user namespaces here: no small file system can be mounted")
@sizes(16, 4)
def test_a_real_file_system_runs_full(pending, tmp_path, record, size):
    """Native code gets ENOSPC from the kernel here: tensorstore, SQLite, safetensors."""
    plan = json.dumps({"how": "tmpfs", "every": size})
    words = ["unshare", "-rm", sys.executable, "-m", "tests.campaign.failing", str(pending.root), str(tmp_path), plan]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    judge(json.loads(done.stdout), record, "a small tmpfs")
