"""A prepared data set that is encrypted: the same to whoever has the keys, nothing to others, and erasable."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from amnesiac.data import PreparedDataset, Samples, open_dataset, prepare_dataset
from amnesiac.errors import DamagedRow, DamagedStore, DataError, KeyStoreMissing, SpecMismatch
from amnesiac.keys import LocalKeyStore, erased_mask, sample_name
from amnesiac.requests import RequestDraft, draw_random
from amnesiac.requests.resolution import refuse_unfit
from amnesiac.settings import DataSettings

SETTINGS = DataSettings(test_fraction=0.2, validation_fraction=0.25, mean=(0.5,), std=(0.25,))
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def owned(digits: Samples) -> Samples:
    """60 digits of 20 people."""
    return replace(digits, subject_ids=tuple(f"person-{k % 20:02d}" for k in range(60)))


@pytest.fixture
def keys(tmp_path: Path) -> LocalKeyStore:
    return LocalKeyStore(tmp_path / "keys", create=True)


@pytest.fixture
def folder(tmp_path: Path, owned: Samples, keys: LocalKeyStore) -> Path:
    prepare_dataset(owned, SETTINGS, 3, tmp_path / "data", keys)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def plain(owned: Samples, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    place = tmp_path_factory.mktemp("plain") / "data"
    prepare_dataset(owned, SETTINGS, 3, place)
    return open_dataset(place)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def erase(keys: LocalKeyStore, owned: Samples, *people: str) -> None:
    of_people = [sample for sample, person in zip(owned.sample_ids, owned.subject_ids, strict=True) if person in people]
    numbers = keys.find([sample_name(sample) for sample in of_people])
    assert (numbers >= 0).all()
    keys.destroy(numbers)


def test_who_has_the_keys_sees_what_was_prepared(folder: Path, keys: LocalKeyStore, plain: PreparedDataset) -> None:
    data = open_dataset(folder, LocalKeyStore(keys.folder))
    pd.testing.assert_frame_equal(data.index, plain.index)
    assert data.content_hash == plain.content_hash
    for name in SPLITS:
        ours, theirs = data.split(name), plain.split(name)
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.labels, theirs.labels)
        assert (ours.sample_ids, ours.subject_ids) == (theirs.sample_ids, theirs.subject_ids)
        assert ours.erased.tolist() == theirs.erased.tolist() == [False] * len(ours)
        assert ours.readable() is ours
    assert len(np.unique(data.key_numbers)) == 60
    assert plain.key_numbers.size == 0


def read_out(folder: Path) -> bytes:
    """All files, and the index once more without parquet's compression, in which an id might hide."""
    table = pd.read_parquet(folder / "index.parquet")
    cells = [cell if isinstance(cell, bytes) else str(cell).encode() for column in table for cell in table[column]]
    return b"".join(contents(folder).values()) + b"|".join(cells)


def telling(image: np.ndarray) -> bytes:
    """Eight bytes of an image, those with most grey levels."""
    content = image.tobytes()
    return max((content[k : k + 8] for k in range(len(content) - 8)), key=lambda part: len(set(part)))


def test_no_id_and_no_image_lies_in_clear(folder: Path, plain: PreparedDataset, owned: Samples) -> None:
    ours, theirs = read_out(folder), read_out(plain.folder)
    parts = [name.encode() for name in (*owned.sample_ids, *owned.subject_ids)]
    parts += [telling(image) for image in owned.images]
    assert all(part in theirs for part in parts), "or nothing could be found"
    assert not [part for part in parts if part in ours]
    assert not re.findall(rb"person-\d\d|mnist-5k-\d", ours)


def test_two_prepares_are_byte_identical(folder: Path, tmp_path: Path, owned: Samples, keys: LocalKeyStore) -> None:
    prepare_dataset(owned, SETTINGS, 3, tmp_path / "again", LocalKeyStore(keys.folder))
    assert contents(tmp_path / "again") == contents(folder)


def test_without_the_keys_nothing_opens(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyStoreMissing, match="data is encrypted with the keys of store .*pass keys=LocalKeyStore"):
        open_dataset(folder)
    with pytest.raises(KeyStoreMissing, match=r"no key store at .*nowhere.*Restore its backup there, or set AMNESIAC"):
        open_dataset(folder, LocalKeyStore(tmp_path / "nowhere"))
    other = LocalKeyStore(tmp_path / "other", create=True)
    with pytest.raises(SpecMismatch, match=f"but store {other.store_id} was given"):
        open_dataset(folder, other)


def test_altered_ids_and_images(folder: Path, keys: LocalKeyStore) -> None:
    shard = folder / "samples.zarr/images/c/0/0"
    data = bytearray(shard.read_bytes())
    data[4 * 784 + 300] ^= 1
    shard.write_bytes(data)
    opened = open_dataset(folder, keys)
    with pytest.raises(DamagedRow, match="row 4 of 'images' is damaged: its authentication tag differs"):
        opened.split("train")
    swapped = opened.table["ids"].tolist()
    swapped[2], swapped[3] = swapped[3], swapped[2]
    damaged = replace(opened, table=opened.table.assign(ids=swapped))
    with pytest.raises(DamagedStore, match=r"index\.parquet: the ids of row 2 were altered"):
        _ = damaged.index


def test_an_erased_persons_samples_are_placeholders(
    folder: Path, owned: Samples, keys: LocalKeyStore, plain: PreparedDataset
) -> None:
    before = contents(folder)
    gone = plain.index["subject_id"].isin(["person-03", "person-11"]).to_numpy()
    assert gone.sum() == 6
    erase(keys, owned, "person-03", "person-11")
    data = open_dataset(folder, LocalKeyStore(keys.folder))
    assert contents(folder) == before, "what DVC has recorded stays"
    assert np.array_equal(data.erased, gone)
    assert np.array_equal(erased_mask(data.index), gone)
    placeholders = [f"erased-{row}" for row in np.flatnonzero(gone)]
    for column in ("sample_id", "subject_id"):
        assert data.index.loc[gone, column].tolist() == placeholders
        assert data.index.loc[~gone, column].tolist() == plain.index.loc[~gone, column].tolist()
    rest = ["row", "label", "class_name", "split"]
    pd.testing.assert_frame_equal(data.index[rest], plain.index[rest])
    for name in SPLITS:
        ours, theirs = data.split(name), plain.split(name)
        own = gone[(plain.index["split"] == name).to_numpy()]
        assert np.array_equal(ours.erased, own)
        assert not ours.inputs[torch.from_numpy(own)].any()
        kept = torch.from_numpy(~own)
        assert torch.equal(ours.inputs[kept], theirs.inputs[kept])
        assert torch.equal(ours.labels, theirs.labels)
        held = ours.readable()
        assert len(held) == (~own).sum()
        assert torch.equal(held.inputs, theirs.inputs[kept])
        assert not held.erased.any()
        assert ours.take(range(len(own) - 1, -1, -1)).erased.tolist() == own[::-1].tolist()


def test_erased_samples_are_neither_drawn_nor_found(folder: Path, owned: Samples, keys: LocalKeyStore) -> None:
    erase(keys, owned, *(f"person-{k:02d}" for k in range(15)))
    index = open_dataset(folder, keys).index
    held = set(index.loc[~erased_mask(index) & (index["split"] == "train"), "sample_id"])
    drawn = draw_random(index, 0, count=len(held) - 1)
    assert set(drawn.values) < held
    with pytest.raises(Exception, match="doesn't hold subject 'person-03'"):
        refuse_unfit([RequestDraft("subject", ("person-03",))], [], index)


def test_whoever_comes_again_after_erasure_has_a_new_key(
    folder: Path, tmp_path: Path, owned: Samples, keys: LocalKeyStore
) -> None:
    erase(keys, owned, "person-03")
    prepare_dataset(owned, SETTINGS, 3, tmp_path / "again", keys)
    assert not open_dataset(tmp_path / "again", keys).erased.any()
    assert open_dataset(folder, keys).erased.sum() == 3, "the old files stay unreadable"


def test_an_id_that_looks_erased_is_refused(tmp_path: Path, digits: Samples, keys: LocalKeyStore) -> None:
    renamed = replace(digits, sample_ids=(*digits.sample_ids[:7], "erased-7", *digits.sample_ids[8:]))
    with pytest.raises(DataError, match="row 7: the id 'erased-7' is what erased samples are called: rename it"):
        prepare_dataset(renamed, SETTINGS, 3, tmp_path / "data", keys)
