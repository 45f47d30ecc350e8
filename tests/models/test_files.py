import pytest
import torch

from amnesiac.errors import DamagedStore
from amnesiac.hashing import hash_tensors
from amnesiac.models import build_model, load_metadata, load_weights, save_weights
from amnesiac.settings import ModelSettings


def test_weights_come_back_bit_for_bit_with_their_metadata(tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    weights = build_model(ModelSettings(factory="cnn"), (1, 8, 8), 3, seed=0).state_dict()
    save_weights(path, weights, {"run": "r1"})
    assert hash_tensors(load_weights(path)) == hash_tensors(weights)
    assert load_metadata(path) == {"run": "r1"}
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_tensors_that_are_views_are_saved_whole(tmp_path):
    value = torch.arange(6.0).reshape(2, 3).T
    save_weights(tmp_path / "w", {"w": value})
    assert torch.equal(load_weights(tmp_path / "w")["w"], value)
    assert load_metadata(tmp_path / "w") == {}


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08\0\0\0\0\0\0\0{}"])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedStore, match="model.safetensors isn't a readable safetensors file"):
        load_weights(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedStore, match="isn't a readable"):
        load_weights(path)


def test_the_same_content_is_the_same_bytes_whatever_order_its_metadata_comes_in(tmp_path):
    facts = {"sha256": "x", "member": "own 1: é", "run_id": "r"}
    for k in range(12):  # safetensors draws the order anew at each call
        save_weights(tmp_path / str(k), {"w": torch.ones(3)}, dict(sorted(facts.items(), reverse=bool(k % 2))))
    assert len({(tmp_path / str(k)).read_bytes() for k in range(12)}) == 1
    assert load_metadata(tmp_path / "0") == facts and torch.equal(load_weights(tmp_path / "0")["w"], torch.ones(3))
