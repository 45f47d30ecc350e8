"""Requests that come twice, late, empty or for nobody: counted exactly, carried out once."""

from dataclasses import replace

import pytest

from amnesiac.errors import RequestError, UnknownSample
from amnesiac.requests import Journal, RequestDraft
from tests.campaign.cycle import IDS

pytestmark = pytest.mark.parametrize("size", ["short", pytest.param("full", marks=pytest.mark.campaign)])


def state(project):
    return project.everything()


def test_requests_are_carried_out_once_and_counted_exactly(project, record, size):
    assert project.file(IDS[5], IDS[7], name="second").filed == (), "a duplicate before the run"
    again = project.file(IDS[9], IDS[9], name="twice-in-one")
    assert [len(request.values) for request in again.filed] == [1]
    project.run()
    done = state(project)
    assert [one["request"]["id"] for one in done["receipts"]] == ["first", "second", "twice-in-one"]
    assert [one["rows_removed"] for one in done["receipts"]] == [2, 3, 3], "of their batch"
    assert sum(done["alive"]) == len(IDS) - 5

    found = project.file(IDS[1], IDS[2], name="first")
    assert (found.filed, [request.request_id for request in found.already]) == ((), ["first"]), "replayed, redacted"
    assert project.run() is None
    assert state(project) == done

    assert project.journal.file([], project.index()).filed == ()
    with pytest.raises(RequestError, match="name"):
        RequestDraft("samples", ())
    for draft in (("person-9999",), (IDS[3], "nobody")):
        with pytest.raises(UnknownSample, match=draft[-1]):
            project.file(*draft)
    with pytest.raises(RequestError, match="already used for another request"):
        project.file(IDS[30], name="first")
    with pytest.raises(RequestError, match="all 48 samples"):
        project.file(*IDS)
    assert project.run() is None
    assert state(project) == done

    project.file(IDS[1], IDS[5], name="erased-already")
    project.run()
    last = state(project)
    assert (last["weights"], last["alive"]) == (done["weights"], done["alive"])
    assert (last["receipts"][-1]["rows_removed"], last["receipts"][-1]["keys_destroyed"]) == (0, 0)
    assert len(last["receipts"]) == 4
    assert last["chain"] == []
    record(7, "requests", True, kinds="8 of 8", receipts="4 of 4", done_twice=0, lost=0)


def test_ids_that_the_data_has_lost_stop_the_batch_or_are_listed_and_stop_nobody(project, record, size):
    project.file(IDS[10], IDS[30], name="partly")
    project.file(IDS[31], name="wholly")
    before = state(project)
    refusing = replace(project, lost=(IDS[30], IDS[31]))
    for _ in range(2):
        with pytest.raises(UnknownSample, match=rf"{IDS[30]}.*{IDS[31]}.*2 unknown in all.*unknown: go_on"):
            refusing.run()
    after = state(project)
    assert {name: after[name] for name in before if name != "files"} == {
        name: before[name] for name in before if name != "files"
    }
    assert project.batches.current() is None
    assert [request.request_id for request in project.pending()] == ["second", "partly", "wholly"]

    going_on = replace(refusing, unknown="go_on")
    going_on.run()
    receipts = {one["request"]["id"]: one["request"] for one in state(project)["receipts"]}
    counts = {name: (len(one["ids"]), len(one["not_held"])) for name, one in receipts.items()}
    assert counts == {"first": (2, 0), "second": (2, 0), "partly": (1, 1), "wholly": (0, 1)}
    assert [k for k, alive in enumerate(project.alive()) if not alive] == [1, 2, 5, 7, 10]
    assert project.pending() == ()
    assert going_on.run() is None
    record(7, "requests of lost ids", True, refused="2 of 2", listed="2 of 2", done_twice=0, lost=0)


def test_all_but_one_then_the_last_is_refused(project, size):
    rest = IDS[:2] + IDS[3:-1]
    project.file(*rest, name="nearly-all")
    project.run()
    assert project.found()["requests"] == ["first", "second", "nearly-all"]
    assert sum(project.alive()) == 1
    with pytest.raises(RequestError):
        project.file(IDS[-1])
    assert isinstance(project.journal, Journal)
