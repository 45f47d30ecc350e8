"""Nothing on our paths unpickles: a whole deletion, and opening every store, with an unpickler that refuses."""

import pickle

import pandas as pd
import pytest
import torch

from amnesiac.erasure import Tombstones
from amnesiac.publication import read_head
from amnesiac.receipts import verify_chain
from tests.campaign.audit import audit
from tests.campaign.cycle import IDS, create


class Refused(Exception):
    """Something was unpickled."""


@pytest.fixture
def no_pickle(monkeypatch):
    def refuse(*arguments, **named):
        raise Refused

    class Unpickler(pickle._Unpickler):
        def __init__(self, *arguments, **named):
            raise Refused

    for name in ("load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, Unpickler)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pd, "read_pickle", refuse)


def test_the_patch_refuses(no_pickle, tmp_path):
    content = pickle.dumps({"a": 1})
    with pytest.raises(Refused):
        pickle.loads(content)  # noqa: S301
    with pytest.raises(Refused):
        pickle.Unpickler(None)  # noqa: S301
    with pytest.raises(Refused):
        torch.load(tmp_path / "weights.pt")


def test_a_whole_deletion_and_every_store(no_pickle, tmp_path):
    project = create(tmp_path / "project")
    project.file(IDS[1], name="one")
    project.run()
    assert audit(project) == []
    assert project.store.read(read_head(project.store).version).weights()
    assert project.ledger.samples["sample_id"][1] == "erased-1"
    for name in project.ledger.manifest.entries:
        project.ledger.check_rows(name)
    assert len(Tombstones(project.root / "tombstones")) == 1
    assert verify_chain(project.chain.folder).receipts == 1
    assert project.journal.requests()[0].redacted


def test_no_file_of_a_project_is_a_pickle(tmp_path):
    project = create(tmp_path / "project")
    project.file(IDS[1], name="one")
    project.run()
    files = [path for path in project.root.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not (content[:1] == b"\x80" and content[1:2] in b"\2\3\4\5" and content.endswith(b".")), path
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth"}
