"""Pending requests that name what the data has lost: the batch is refused, or goes on and lists them as not held."""

import json
from collections.abc import Callable

import pandas as pd
import pytest

from amnesiac.data import open_dataset
from amnesiac.errors import UnknownSample
from amnesiac.keys import LocalKeyStore
from amnesiac.requests import Batches, Journal, RequestDraft, value_hmac
from tasks import erasing
from tasks.handing_in import NewRequest, file_handed_in, hand_in
from tasks.opaque import shown_whole
from tasks.publishing import abandoned_on_error, plan_batch
from tests.pipeline.project import Project, finish, run

LOST, NOBODY = "mnist-5k-99998", "writer-99999"


def file_before_they_were_lost(project: Project) -> str:
    """A request for a sample that is held and one that isn't any more, and one for somebody of whom nothing is."""
    index = open_dataset(project.data / "prepared", LocalKeyStore(project.data / "keys")).index
    held = str(index.loc[(index["split"] == "train") & (index["class_name"] == "5"), "sample_id"].iloc[0])
    lost = index.tail(1).assign(sample_id=LOST, subject_id=NOBODY)
    drafts = [RequestDraft("samples", (held, LOST), "partly"), RequestDraft("subject", (NOBODY,), "wholly")]
    Journal(project.data / "journal").file(drafts, pd.concat([index, lost]))
    return held


def test_lost_ids_refuse_the_batch_or_are_listed_in_status_version_and_receipt(
    copied: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied("unknown")
    held, journal = file_before_they_were_lost(project), Journal(project.data / "journal")
    lost, nobody = value_hmac(journal.salt(), "samples", LOST), value_hmac(journal.salt(), "subject", NOBODY)

    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    names = f"sample '{LOST}', subject '{NOBODY}'"
    refused = pytest.raises(UnknownSample, match=f"doesn't hold {names}.*unknown: go_on")
    with refused, shown_whole(), abandoned_on_error():
        plan_batch.fn(False, False)
    assert Batches(journal).history()[-1].ended == "abandoned"
    shown = run(project, "status")
    assert "1 of 2 ids of partly: the next batch stops there" in shown.output
    found = json.loads(run(project, "status", "--json").output)
    assert found["not_held"] == [
        {"request_id": "partly", "named": 2, "not_held": 1, "ids": [lost], "blocks": True},
        {"request_id": "wholly", "named": 1, "not_held": 1, "ids": [nobody], "blocks": True},
    ]
    assert LOST not in shown.output + json.dumps(found)

    project.edit("seed: 0\ndata", "seed: 0\nrequests: {unknown: go_on}\ndata")
    assert [one["blocks"] for one in json.loads(run(project, "status", "--json").output)["not_held"]] == [False, False]
    finish(project.amnesiac("publish", "--no-evaluate"))
    assert project.version()["not_held"] == {"partly": [lost], "wholly": [nobody]}
    listed = json.loads(run(project, "request", "list", "--json").output)["requests"]
    assert [(one["state"], one["not_held"]) for one in listed[2:]] == [("PUBLISHED", 1), ("PUBLISHED", 1)]
    assert [one["not_held"] for one in json.loads(run(project, "status", "--json").output)["not_held"]] == [1, 1]
    said = erasing._look_up(Batches(journal).history()[-1]).requests  # what the receipts will say
    ours = [value_hmac(journal.salt(), "samples", held)]
    assert said["partly"] == {"rows": 1, "keys": 1, "subjects": 1, "ids": ours, "not_held": [lost]}
    assert said["wholly"] == {"rows": 0, "keys": 0, "subjects": 0, "ids": [], "not_held": [nobody]}


def test_what_was_handed_in_is_filed_by_the_next_run_or_refused_once(
    copied: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied("handed-in")
    monkeypatch.setenv("AMNESIAC_PROJECT", str(project.root))
    journal, folder = Journal(project.data / "journal"), project.data / "journal/handed-in"
    hand_in([NewRequest(classes=("5",))])
    hand_in([NewRequest(random_count=3, random_seed=9), NewRequest(classes=("5",))])
    assert file_handed_in() == 2, "class 5 once"
    assert [request.kind for request in journal.requests()[2:]] == ["class", "random"]
    hand_in([NewRequest(random_count=3, random_seed=9)])
    assert file_handed_in() == 0, "drawn once"
    before = journal.requests()
    hand_in([NewRequest(classes=("6",)), NewRequest(samples=(NOBODY,))])
    with pytest.raises(UnknownSample, match=NOBODY):
        file_handed_in()
    assert file_handed_in() == 0
    assert (journal.requests(), list(folder.iterdir())) == (before, [])
