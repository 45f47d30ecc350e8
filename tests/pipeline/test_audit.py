"""`amnesiac audit` on a real project: killed, it goes on; what it says of itself decides its exit code."""

import json
import os
import signal
import time
from collections.abc import Callable

from tests.pipeline.project import Project, ask, finish, kill

AUDIT = ("audit", "--models", "4", "--set", "mislabelled", "--share", "0.03", "--workers", "1")


def test_a_killed_audit_goes_on_and_a_blind_one_says_so(copied: Callable[[str], Project]) -> None:
    project = copied("audited")
    members = project.data / "ensembles"
    running = project.amnesiac(*AUDIT).start()
    try:
        while running.poll() is None and len(list(members.glob("*.safetensors"))) < 3:
            time.sleep(0.05)
        assert running.poll() is None, running.communicate()
        os.killpg(running.pid, signal.SIGKILL)
    finally:
        kill(running)
    first, *kept = sorted(members.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)[:3]
    first.write_bytes(first.read_bytes()[:-1] + b"?")  # damaged meanwhile
    before = [path.stat().st_mtime_ns for path in kept]
    # two epochs of 200 images teach nothing by heart, so even the untouched original passes: the audit must not
    [printed] = finish(project.amnesiac(*AUDIT, "--json", code=1))
    result = printed.json()
    assert result == json.loads((project.data / "audit/audit.json").read_text())
    assert not result["verdict"]["sound"] and "fails its own check: untouched original" in result["verdict"]["check"]
    assert list(result["sets"]) == ["mislabelled"] and result["method"] == "per-sample-delta"
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert f"{first.name} was altered" in printed.err and "is trained again" in printed.err
    assert len(list(members.glob("*.safetensors"))) == 4 + 4 * 2
    assert {"roc.png", "roc.svg", "klom.png", "roc.csv", "klom.csv"} <= {
        p.name for p in (project.data / "audit").iterdir()
    }
    assert not (project.data / "scratch/audit").exists() or not list((project.data / "scratch/audit").iterdir())
    assert project.server is not None
    found = {one["key"] for one in ask(project.server, "artifacts/latest/filter")}
    assert {"audit", "audit-verdict", "audit-members", "audit-roc", "audit-klom"} <= found
    assert finish(project.dvc("status"))[0].out.strip() == "Data and pipelines are up to date."
    forgotten = int(project.version()["samples"])
    assert forgotten > 0  # the project's own forgotten people are in no audit: 4 of 5 samples of 300 are trained on
    assert result["sets"]["mislabelled"]["samples"] == max(5, -(-3 * (240 - forgotten) // 100))
