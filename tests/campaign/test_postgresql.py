"""The same deletions with the journal on a PostgreSQL server: kills, jobs at once, sessions that the server ends."""

import json
import shutil

import pytest

from amnesiac.requests import Journal, copy_journal
from tests.campaign.audit import audit
from tests.campaign.cycle import Cycle
from tests.campaign.sizes import sizes
from tests.campaign.test_concurrency import serially


@pytest.fixture
def server(postgresql, monkeypatch):
    """Projects have their journals on it, here and in processes of the campaign."""
    address = postgresql.url().rpartition("&")[0]
    monkeypatch.setenv("AMNESIAC_TEST_SERVER", address)
    return address


@pytest.fixture
def moved(pending, tmp_path, server):
    """`pending`, its journal on the server."""
    shutil.copytree(pending.root, tmp_path / "moved")
    project = Cycle(tmp_path / "moved", pending.method, pending.last)
    held = Journal(project.root / "journal")
    assert held.path.exists()
    for path in project.root.glob("journal/deletions.sqlite*"):
        path.rename(tmp_path / path.name)
    copy_journal(Journal(tmp_path).database, project.journal.database)
    return project


@sizes(90, 1)
def test_a_deletion_whose_sessions_the_server_ends(moved, process, tmp_path, record, size):
    trials = process("failing", moved.root, tmp_path, json.dumps({"how": "sessions", "every": size}))
    told = [trial for trial in trials if trial["error"]]
    wrong = [trial for trial in trials if trial["wrong"] or (trial["error"] and not trial["error"]["ours"])]
    record(
        13, "PostgreSQL, sessions ended", not wrong, trials=len(trials), told=len(told), wrong_results=len(wrong)
    )  # fmt: skip
    assert not wrong, wrong[:3]
    assert told, "or nothing was ended"
    assert all("server" in trial["error"]["said"] or "connection" in trial["error"]["said"] for trial in told)


@pytest.mark.campaign
def test_a_deletion_killed_at_changes(moved, process, tmp_path, record):
    plan = {"how": "mutations", "what": "deletion", "most": 0, "seed": 1}
    found = process("killing", moved.root, tmp_path, json.dumps(plan))
    wrong = [trial for trial in found["trials"] if trial["wrong"]]
    record(13, "PostgreSQL, kills", not wrong, kill_points=len(found["trials"]), wrong_results=len(wrong))
    assert not wrong, wrong[:3]
    assert found["total"] > 150


@pytest.mark.campaign
@pytest.mark.parametrize(("jobs", "seed"), [(2, "a"), (4, "a"), (8, "b")])
def test_jobs_at_once(sealed, server, process, tmp_path, record, jobs, seed):
    project = sealed.copy(tmp_path / "project")
    found = process("jobs", project.root, jobs, seed)
    serial = serially(sealed.copy(tmp_path / "serial"), found)
    done = [name for names in found["end"]["history"] for name in names]
    same = all(found["end"][key] == serial[key] for key in ("weights", "alive", "ledger", "redacted"))
    right = not any(found["codes"]) and sorted(done) == sorted(found["filed"]) and same and not audit(project)
    record(13, f"PostgreSQL, {jobs} jobs at once", right, requests=len(done), found_another_at_work=found["busy"])
    assert right, (found["codes"], audit(project))
