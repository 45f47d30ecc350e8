"""Training killed after and between its steps ends, resumed, with the ledger of one that wasn't."""

import json

import pytest

from amnesiac.keys import LocalKeyStore, sample_name
from tests.campaign.cycle import IDS, Cycle
from tests.campaign.sizes import sizes


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    project = Cycle(tmp_path_factory.mktemp("untrained") / "project")
    LocalKeyStore(project.root / "keys", create=True).ensure([sample_name(name) for name in IDS])
    return project


@pytest.mark.parametrize("how", ["steps", "lines"])
@sizes(1, 18)
def test_training_killed_and_resumed(untrained, process, tmp_path, record, how, size):
    plan = {"how": how, "what": "seal", "most": size, "seed": 3}
    found = process("killing", untrained.root, tmp_path, json.dumps(plan))
    wrong = [trial for trial in found["trials"] if trial["wrong"]]
    part = "after steps" if how == "steps" else "mid-step, at lines of our own code"
    record(9, part, not wrong, kills=len(found["trials"]), points_in_all=found["total"], wrong_results=len(wrong))
    assert not wrong, wrong
    assert all(trial["killed"] for trial in found["trials"])
    assert how == "lines" or found["total"] == 18
