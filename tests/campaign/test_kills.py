"""Killed anywhere, a deletion is the one before or the one after, and goes on to the same end, with one receipt."""

import json
import shutil
import statistics

import pytest

from amnesiac.keys import LocalKeyStore, sample_name
from amnesiac.training import CapturePlan, train_with_capture
from amnesiac.unlearning import ledgers_for
from tests.campaign.cycle import IDS, Cycle, build, data
from tests.campaign.sizes import KILLS, sizes


@pytest.fixture(scope="session")
def unsealed(tmp_path_factory):
    """Trained to the end; the ledger isn't sealed yet."""
    project = Cycle(tmp_path_factory.mktemp("unsealed") / "project")
    LocalKeyStore(project.root / "keys", create=True).ensure([f"{sample_name(name)}" for name in IDS])
    ledgers, folder = ledgers_for(project.capture), project.root / "ledger"
    plan = CapturePlan(project.capture, ledgers, IDS, IDS, folder, project.root / "scratch", project.keys)
    train_with_capture(project.spec, build, data(), plan)
    shutil.rmtree(folder)
    return project


@pytest.fixture
def kill(process, tmp_path, record):
    """Kill copies of a project; nothing may be wrong."""

    def all_of(number, name, base, how, what, most):
        plan = {"how": how, "what": what, "most": most, "seed": 1}
        found = process("killing", base.root, tmp_path, json.dumps(plan))
        trials = found["trials"]
        wrong = [trial for trial in trials if trial["wrong"]]
        recovery = sorted(trial["seconds"][0] for trial in trials)
        killed = sum(trial["killed"] for trial in trials)
        unit = "seconds" if how == "times" else "points"
        total = {unit: round(found["total"], 2)} if how == "times" else {"points_in_all": found["total"]}
        record(
            number, name, not wrong, kill_points=len(trials), killed=killed, **total, wrong_results=len(wrong),
            recovery_median_s=round(statistics.median(recovery), 2), recovery_maximum_s=round(recovery[-1], 2),
        )  # fmt: skip
        assert not wrong, wrong[:3]
        return found, killed

    return all_of


@sizes(8, 0)
def test_a_deletion_killed_at_changes_on_disk(pending, kill, size):
    found, killed = kill(1, "deletion, changes", pending, "mutations", "deletion", size)
    assert found["total"] > 150
    assert killed == len(found["trials"]) == (size + 1 if size else found["total"])


@sizes(3, 0)
def test_a_sealing_killed_at_changes_on_disk(unsealed, kill, size):
    found, killed = kill(1, "sealing, changes", unsealed, "mutations", "seal", size)
    assert found["total"] > 60
    assert killed == len(found["trials"])


@sizes(4, 100)
def test_a_deletion_killed_at_lines_of_our_own_code(pending, kill, size):
    found, killed = kill(1, "deletion, lines", pending, "lines", "deletion", size)
    assert killed == len(found["trials"])


@pytest.mark.campaign
def test_a_sealing_killed_at_lines_of_our_own_code(unsealed, kill):
    kill(1, "sealing, lines", unsealed, "lines", "seal", 20)


@sizes(3, 60)
def test_a_deletion_killed_again_while_it_recovers(pending, kill, size):
    kill(2, "deletion", pending, "twice", "deletion", size)


@sizes(3, KILLS)
def test_a_deletion_killed_at_random_times(pending, kill, size):
    kill(3, "deletion, a process", pending, "times", "deletion", size)


@pytest.mark.campaign
def test_a_sealing_killed_at_random_times(unsealed, kill):
    """Inside of native code, too: rows are written by tensorstore's threads."""
    kill(3, "sealing, a process", unsealed, "times", "seal", max(20, KILLS // 10))
