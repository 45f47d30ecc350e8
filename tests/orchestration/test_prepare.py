"""The task that prepares data leaves tombstoned people out, and says how many. Against a real Prefect server."""

from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from amnesiac.data import open_dataset
from amnesiac.erasure import Tombstones
from tasks.catalog import Catalog
from tasks.data import prepare_data

PARAMS = """
seed: 0
data: {source: mnist-5k, limit: 100}
model: {factory: mlp, options: {hidden: [16]}}
training: {epochs: 1}
capture: {}
unlearning: {}
evaluation: {}
"""


@flow(persist_result=False)
def prepared() -> dict[str, Any]:
    summary: dict[str, Any] = prepare_data()
    return summary


def test_who_was_erased_is_not_taken_in_again(api_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMNESIAC_PROJECT", str(tmp_path))
    (tmp_path / "params.yaml").write_text(PARAMS)
    at = Catalog(tmp_path)
    before = prepared()
    assert (before["erased_left_out"], before["classes_left_out"], before["left_out_with_their_class"]) == (0, (), 0)
    index = open_dataset(at.prepared, at.key_store()).index
    erased = list(index["sample_id"][:5]) + list(index["sample_id"][index["class_name"] == "3"])
    Tombstones(at.tombstones).add("sample", erased[:5])
    Tombstones(at.tombstones).add("subject", erased[5:])
    after = prepared()
    held = open_dataset(at.prepared, at.key_store())
    assert after["erased_left_out"] == len(set(erased))
    assert (after["classes_left_out"], after["left_out_with_their_class"]) == (("3",), 0)
    assert set(held.index["sample_id"]) == set(index["sample_id"]) - set(erased)
    assert held.class_names == tuple("012456789")
    assert after["content_hash"] == held.content_hash != before["content_hash"]
