"""A project's journal goes to a server, and into a file for a backup."""

import secrets
from pathlib import Path

import pandas as pd
import pytest

from amnesiac.errors import InputError, StoreError
from amnesiac.requests import Journal, RequestDraft
from tasks.catalog import catalog
from tasks.journal import export_journal, move_journal

ID = "somebody-4711"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A project's journal with a request, as a file."""
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    monkeypatch.delenv("AMNESIAC_JOURNAL", raising=False)
    labels = [0, 1, 0]
    columns = {"row": range(3), "sample_id": [ID, "s1", "s2"], "subject_id": ["p0", "p1", "p2"], "label": labels}
    index = pd.DataFrame(columns | {"class_name": list(map(str, labels)), "split": "train"})
    journal = Journal(tmp_path / "pipeline_data/journal")
    journal.file([RequestDraft("samples", (ID,), "first")], index)
    return journal


def test_the_file_goes_to_a_server_and_is_gone(here: Journal, postgresql, tmp_path, monkeypatch) -> None:
    address, before, pointer = postgresql.url(f"t_{secrets.token_hex(6)}"), here.requests(), here.pointer()
    assert ID.encode() in here.path.read_bytes()
    assert move_journal(address) == 1
    assert not [path for path in here.path.parent.iterdir() if ID.encode() in path.read_bytes()]
    assert not here.path.exists()
    with pytest.raises(StoreError, match="lies in postgresql://.*set AMNESIAC_JOURNAL"):
        catalog().open_journal().requests()
    with pytest.raises(StoreError, match="lies in postgresql://"):
        move_journal(address)
    monkeypatch.setenv("AMNESIAC_JOURNAL", address)
    assert (catalog().open_journal().requests(), catalog().open_journal().pointer()) == (before, pointer)
    assert export_journal(tmp_path / "backup") == 1
    assert Journal(tmp_path / "backup").read_prefix(pointer) == before
    with pytest.raises(InputError, match="exists: name another folder"):
        export_journal(tmp_path / "backup")
