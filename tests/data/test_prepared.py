"""A prepared data set is whole, repeatable to the byte, and refuses what was altered."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
import torch

from amnesiac.data import Samples, open_dataset, prepare_dataset
from amnesiac.errors import DamagedRow, DamagedStore, DataError, SettingsError, SpecMismatch, UnsealedStore
from amnesiac.rowstore import RowArray, RowReader
from amnesiac.settings import DataSettings

SETTINGS = DataSettings(test_fraction=0.2, validation_fraction=0.25, mean=(0.5,), std=(0.25,))


@pytest.fixture
def folder(tmp_path: Path, digits: Samples) -> Path:
    prepare_dataset(digits, SETTINGS, 3, tmp_path / "data")
    return tmp_path / "data"


# A process of its own: the limit holds for every file a process writes, its redirected output (a CI log) included.
PREPARE_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from amnesiac.data import load_samples, prepare_dataset
from amnesiac.errors import StoreError
from amnesiac.settings import DataSettings

digits = load_samples(DataSettings(source="mnist-5k", limit=60), None, seed=0)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # full after 20 kB: the images of 60 digits don't fit
try:
    prepare_dataset(digits, DataSettings.model_validate_json(sys.argv[1]), 4, Path(sys.argv[2]))
except StoreError as error:
    sys.exit(f"refused: {error}")
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_round_trip(folder: Path, digits: Samples) -> None:
    data = open_dataset(folder)
    found: set[str] = set()
    for name, size in (("train", 36), ("validation", 12), ("test", 12)):
        part = data.split(name)
        assert (part.name, len(part), part.inputs.dtype, part.labels.dtype) == (name, size, torch.float32, torch.int64)
        rows = [digits.sample_ids.index(sample) for sample in part.sample_ids]
        assert rows == sorted(rows)  # the source's order
        expected = (torch.from_numpy(digits.images[rows]).float() / 255 - 0.5) / 0.25
        assert torch.equal(part.inputs, expected)
        assert part.labels.tolist() == digits.labels[rows].tolist()
        found |= set(part.sample_ids)
    assert found == set(digits.sample_ids)
    assert (data.image_shape, data.class_names) == ((1, 28, 28), digits.class_names)


def test_index_and_summary(tmp_path: Path, digits: Samples) -> None:
    shared = replace(digits, subject_ids=tuple(f"person-{k % 7}" for k in range(60)))
    summary = prepare_dataset(shared, SETTINGS, 3, tmp_path / "data")
    data = open_dataset(tmp_path / "data")
    assert summary.counts == {"train": 36, "validation": 12, "test": 12}
    assert (summary.subjects, summary.class_names) == (7, digits.class_names)
    assert summary.content_hash == data.content_hash
    assert list(data.index.columns) == ["row", "sample_id", "subject_id", "label", "class_name", "split"]
    assert data.index["row"].tolist() == list(range(60))
    assert data.index["split"].tolist() == ["train"] * 36 + ["validation"] * 12 + ["test"] * 12
    assert data.index["class_name"].tolist() == data.index["label"].astype(str).tolist()
    test = data.split("test")
    where = {name: digits.sample_ids.index(name) for name in test.sample_ids}
    assert test.subject_ids == tuple(f"person-{where[name] % 7}" for name in test.sample_ids)


def test_float_images_and_channels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(8, 3, 4, 5)).astype(np.float32)
    ids = tuple("abcdefgh")
    samples = Samples(images, np.array([0, 1] * 4), ids, ids, ("x", "y"), "made", test=np.arange(8) >= 6)
    prepare_dataset(samples, DataSettings(mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 4.0)), 0, tmp_path / "data")
    data = open_dataset(tmp_path / "data")
    mean, std = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1), torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    assert torch.equal(data.split("train").inputs, (torch.from_numpy(images[:6]) - mean) / std)
    assert data.split("test").sample_ids == ("g", "h")
    empty = data.split("validation")
    assert (len(empty), empty.inputs.shape) == (0, (0, 3, 4, 5))


def test_take(folder: Path) -> None:
    train = open_dataset(folder).split("train")
    for rows in ([5, 0, 5], np.array([5, 0, 5]), torch.tensor([5, 0, 5])):
        taken = train.take(rows)
        assert taken.sample_ids == (train.sample_ids[5], train.sample_ids[0], train.sample_ids[5])
        assert torch.equal(taken.inputs, train.inputs[[5, 0, 5]])
        assert torch.equal(taken.labels, train.labels[[5, 0, 5]])
    assert len(train.take([])) == 0
    with pytest.raises(IndexError):
        train.take([36])


def test_two_prepares_are_byte_identical(folder: Path, tmp_path: Path, digits: Samples) -> None:
    prepare_dataset(digits, SETTINGS, 3, tmp_path / "elsewhere" / "again")
    assert contents(tmp_path / "elsewhere" / "again") == contents(folder)


def test_content_hash_sees_what_training_sees(folder: Path, tmp_path: Path, digits: Samples) -> None:
    images, labels = digits.images.copy(), digits.labels.copy()
    images[0, 0, 14, 14] ^= 1
    labels[[0, 6]] = labels[[6, 0]]
    assert labels[0] != digits.labels[0]
    renamed = ("other", *digits.sample_ids[1:])
    own = open_dataset(folder).content_hash
    hashes = {
        prepare_dataset(samples, settings, seed, tmp_path / "other").content_hash
        for samples, settings, seed in (
            (digits, SETTINGS, 3),
            (replace(digits, images=images), SETTINGS, 3),
            (replace(digits, labels=labels), SETTINGS, 3),
            (replace(digits, sample_ids=renamed), SETTINGS, 3),
            (digits, SETTINGS, 4),
            (digits, SETTINGS.model_copy(update={"mean": (0.4,)}), 3),
        )
    }
    assert len(hashes) == 6
    assert own in hashes
    owned = replace(digits, subject_ids=("someone",) * 60)
    assert prepare_dataset(owned, SETTINGS, 3, tmp_path / "other").content_hash == own


def test_malformed_samples_leave_nothing(tmp_path: Path, digits: Samples) -> None:
    twice = replace(digits, sample_ids=(digits.sample_ids[1], *digits.sample_ids[1:]))
    with pytest.raises(DataError, match="is already used by"):
        prepare_dataset(twice, SETTINGS, 3, tmp_path / "data")
    with pytest.raises(SettingsError, match="data.std has 3 values, the images 1 channels: give 1 or 1"):
        prepare_dataset(digits, DataSettings(std=(1, 2, 3)), 3, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_failing_write_leaves_the_old_folder_and_no_partial(folder: Path) -> None:
    before = contents(folder)
    command = [sys.executable, "-c", PREPARE_ON_A_FULL_DISK, SETTINGS.model_dump_json(), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert re.search("refused: .*can't be written.*File too large.*run the stage again", ended.stderr), ended.stderr
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_success_replaces_the_old_folder(folder: Path, digits: Samples) -> None:
    (folder / "stray").write_text("x")
    prepare_dataset(digits, SETTINGS, 4, folder)
    assert not (folder / "stray").exists()
    assert open_dataset(folder).record.seed == 4
    assert list(folder.parent.iterdir()) == [folder]


def test_unfinished_data_set(folder: Path, tmp_path: Path) -> None:
    (folder / "dataset.json").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(
            UnsealedStore, match=r"isn't a finished data set \(dataset.json is missing\): run the stage"
        ):
            open_dataset(path)


def test_altered_image_row_is_refused(folder: Path) -> None:
    train = open_dataset(folder).split("train")
    digit = (train.inputs[4] * 0.25 + 0.5).mul(255).round().to(torch.uint8).numpy().tobytes()
    shard = folder / "samples.zarr" / "images" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    assert data.count(digit) == 1
    data[data.index(digit) + 300] ^= 1
    shard.write_bytes(data)
    damaged = open_dataset(folder)
    with pytest.raises(DamagedRow, match="row 4 of 'images' is damaged"):
        damaged.split("train")
    assert len(damaged.split("test")) == 12  # other rows are what they were


def test_missing_images_are_never_zeros(folder: Path) -> None:
    (folder / "samples.zarr" / "images" / "c" / "0" / "0").unlink()
    with pytest.raises(DamagedRow):
        open_dataset(folder).split("train")


def test_images_of_another_data_set(folder: Path, tmp_path: Path, digits: Samples) -> None:
    prepare_dataset(digits, SETTINGS, 4, tmp_path / "other")
    copytree(tmp_path / "other" / "samples.zarr", folder / "samples.zarr", dirs_exist_ok=True)
    with pytest.raises(SpecMismatch, match="the images' checksums aren't the recorded ones"):
        open_dataset(folder)
    few = replace(digits, images=digits.images[:, :, ::2, ::2])
    prepare_dataset(few, SETTINGS, 3, tmp_path / "few")
    copytree(tmp_path / "few" / "samples.zarr", folder / "samples.zarr", dirs_exist_ok=True)
    with pytest.raises(SpecMismatch, match="60 images of 196 bytes, the record says 60 of 784"):
        open_dataset(folder)


def test_rows_are_bound_to_the_content_hash(folder: Path) -> None:
    with pytest.raises(DamagedRow):
        RowReader(RowArray(folder / "samples.zarr", "images", "another data set")).read([0])


def test_altered_index(folder: Path) -> None:
    index = pd.read_parquet(folder / "index.parquet")
    index.loc[0, "subject_id"] = "someone-else"
    index.to_parquet(folder / "index.parquet", index=False)
    with pytest.raises(DamagedStore, match="index.parquet: was altered"):
        open_dataset(folder)
    (folder / "index.parquet").unlink()
    with pytest.raises(DamagedStore, match="index.parquet: can't be read"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("mean", [0.0]), ("class_names", ["x"]), ("seed", 9), ("content_hash", "0")]
)
def test_altered_record(folder: Path, field: str, value: object) -> None:
    path = folder / "dataset.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, field: value}))
    with pytest.raises(DamagedStore, match=r"dataset.json: was altered \(its seal doesn't match\): restore it"):
        open_dataset(folder)


def test_torn_or_foreign_record(folder: Path) -> None:
    path = folder / "dataset.json"
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(DamagedStore, match="dataset.json: can't be read"):
        open_dataset(folder)
    path.write_text("[]")
    with pytest.raises(DamagedStore, match="isn't a JSON object"):
        open_dataset(folder)
    path.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(SpecMismatch, match="data set format 3, this version reads 2: prepare it again"):
        open_dataset(folder)


def test_missing_rows_and_unknown_split(folder: Path) -> None:
    with pytest.raises(DataError, match="no split 'val': choose one of train, validation, test"):
        open_dataset(folder).split("val")
    (folder / "samples.zarr" / "images" / "zarr.json").unlink()
    with pytest.raises(DamagedStore, match="row array 'images' can't be opened"):
        open_dataset(folder)
