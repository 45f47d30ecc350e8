"""Arrays in an npz archive, and each way in which one can be malformed."""

from pathlib import Path

import numpy as np
import pytest

from amnesiac.data import Samples, load_samples
from amnesiac.errors import DataError
from amnesiac.settings import DataSettings


def load(path: Path, **arrays: object) -> Samples:
    if arrays:
        np.savez(path, **arrays)  # type: ignore[arg-type]
    return load_samples(DataSettings(source="npz", path=path), None, seed=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y")])
def test_names(path: Path, pixels: np.ndarray, images: str, labels: str) -> None:
    samples = load(path, **{images: pixels[:4], labels: LABELS})
    assert np.array_equal(samples.images, pixels[:4, None])
    assert samples.labels.tolist() == [0, 1, 0, 1]
    assert samples.sample_ids == ("own-00000", "own-00001", "own-00002", "own-00003")


def test_layouts_agree(path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 6), np.uint8)
    first = load(path, images=images, labels=LABELS)
    last = load(path, images=images.transpose(0, 2, 3, 1), labels=LABELS)
    assert np.array_equal(first.images, images)
    assert np.array_equal(last.images, images)


def test_floats_become_float32(path: Path, pixels: np.ndarray) -> None:
    samples = load(path, images=pixels[:4] / 255, labels=LABELS)
    assert samples.images.dtype == np.float32
    assert np.array_equal(samples.images[:, 0], (pixels[:4] / 255).astype(np.float32))


def test_test_split_ids_subjects_and_names(path: Path, pixels: np.ndarray) -> None:
    samples = load(
        path,
        x=pixels[:4],
        y=LABELS,
        x_test=pixels[4:6],
        y_test=[1, 0],
        sample_ids=["a", "b", "c", "d"],
        subject_ids=[7, 7, 8, 8],
        class_names=["no", "yes"],
    )
    assert samples.sample_ids == ("a", "b", "c", "d", "own-test-00000", "own-test-00001")
    assert samples.subject_ids == ("7", "7", "8", "8", "own-test-00000", "own-test-00001")
    assert samples.class_names == ("no", "yes")
    assert samples.test is not None
    assert samples.test.tolist() == [False] * 4 + [True] * 2
    assert samples.labels.tolist() == [0, 1, 0, 1, 1, 0]


def test_rows_of_the_test_arrays_are_named(path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="own.npz: row 1 of x_test: label 9 is out of range"):
        load(path, x=pixels[:4], y=LABELS, x_test=pixels[4:6], y_test=[1, 9], class_names=["no", "yes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "own.npz: array labels or y is missing: the archive needs the labels"),
        ({"x": None}, "own.npz: array images or x is missing"),
        ({"images": LABELS}, "images and x both give the images: keep one"),
        ({"x_test": np.zeros((1, 28, 28), np.uint8)}, "array y_test is missing"),
        ({"y_test": LABELS}, "array x_test is missing"),
        ({"subject_id": LABELS}, r"unknown array subject_id: rename or remove it \(known: .*subject_ids"),
        ({"y": LABELS[:3]}, r"labels have shape \[3\], images \[4, 28, 28\]: give one label for each image"),
        ({"y": np.array([0, 1, np.nan, 1])}, r"own.npz: row 2: the label is missing \(NaN\)"),
        ({"y": np.array([0, 1, 0, 7])}, "own.npz: row 3: label 7 is out of range"),
        ({"y": LABELS * 2}, r"no training sample of class '1' \(label 1\)"),
        ({"x": np.full((4, 28, 28), 1e300)}, "own.npz: row 0: the image holds values that aren't finite"),
        ({"x": np.zeros((4, 28, 28), int)}, "own.npz: images are int64: save them as uint8"),
        ({"x": np.zeros((4, 784), np.uint8)}, r"images have shape \[4, 784\]: give \[n, h, w\]"),
        ({"x_test": np.zeros((4, 9, 9), np.uint8), "y_test": LABELS}, r"x_test is uint8 \[1, 9, 9\] .*: bring both"),
        ({"sample_ids": ["a", "b", "a", "c"]}, "own.npz: row 2: sample id 'a' is already used by .*own.npz: row 0"),
        ({"sample_ids": ["a", "b"]}, r"sample ids are <U1 \[2\]: give text or integers, one for each of the 4 samples"),
        ({"subject_ids": [0.5, 1, 2, 3]}, r"subject ids are float64 \[4\]: give text or integers"),
        ({"subject_ids": ["a", "b c", "d", "e"]}, "own.npz: row 1: subject id 'b c' must be 1 to 64"),
        ({"y": np.array([0, "one", None, 1], object)}, r"can't be read as an npz archive of plain arrays .*no objects"),
    ],
)
def test_malformed_arrays(path: Path, pixels: np.ndarray, changes: dict[str, object], message: str) -> None:
    arrays = {"x": pixels[:4], "y": LABELS, **changes}
    with pytest.raises(DataError, match=message):
        load(path, **{name: value for name, value in arrays.items() if value is not None})


def test_not_an_archive(path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="own.npz: can't be read as an npz"):
        load(path)
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match="own.npz: can't be read as an npz"):
        load(path)
    with path.open("wb") as file:
        np.save(file, pixels)
    with pytest.raises(DataError, match="own.npz: can't be read as an npz"):
        load(path)


def test_altered_archive(path: Path, pixels: np.ndarray) -> None:
    load(path, x=pixels[:4], y=LABELS)
    data = bytearray(path.read_bytes())
    data[500] ^= 1  # a pixel of x: the archive's own CRC tells
    path.write_bytes(data)
    with pytest.raises(DataError, match="own.npz: can't be read as an npz .*CRC"):
        load(path)
