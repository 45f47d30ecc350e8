"""A directory for each class, and each way in which a folder can be malformed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amnesiac.data import Samples, load_samples
from amnesiac.errors import DataError
from amnesiac.settings import DataSettings


def load(path: Path) -> Samples:
    return load_samples(DataSettings(source="image-folder", path=path), None, seed=0)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    root = tmp_path / "pets"
    for k, name in enumerate(("cat/1.png", "cat/más 2.png", "dog/old/1.png", "dog/2.bmp")):
        put(root / name, pixels[k])
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "subjects.csv").write_text("sample_id,subject_id\n")
    return root


def test_class_directories(folder: Path, pixels: np.ndarray) -> None:
    samples = load(folder)
    assert samples.class_names == ("cat", "dog")
    assert samples.sample_ids == ("cat:1.png", "cat:m-s-2.png", "dog:2.bmp", "dog:old:1.png")
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(samples.images[[0, 1, 3], 0], pixels[:3])
    assert samples.test is None


def test_train_and_test_folders(tmp_path: Path, pixels: np.ndarray) -> None:
    for k, name in enumerate(("train/a/1.png", "train/b/1.png", "test/a/1.png")):
        put(tmp_path / name, pixels[k])
    samples = load(tmp_path)
    assert samples.sample_ids == ("train:a:1.png", "train:b:1.png", "test:a:1.png")
    assert samples.class_names == ("a", "b")
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.test is not None
    assert samples.test.tolist() == [False, False, True]


def test_only_a_train_folder(tmp_path: Path, pixels: np.ndarray) -> None:
    put(tmp_path / "train/a/1.png", pixels[0])
    samples = load(tmp_path)
    assert samples.class_names == ("a",)
    assert samples.test is None


def test_class_that_only_the_test_folder_has(tmp_path: Path, pixels: np.ndarray) -> None:
    for name in ("train/a/1.png", "test/a/2.png", "test/b/3.png"):
        put(tmp_path / name, pixels[0])
    with pytest.raises(DataError, match="no training sample of class 'b'"):
        load(tmp_path)


def test_folder_beside_train_and_test(tmp_path: Path, pixels: np.ndarray) -> None:
    for name in ("train/a/1.png", "test/a/2.png", "val/a/3.png"):
        put(tmp_path / name, pixels[0])
    with pytest.raises(DataError, match=r"val: lies beside train/ and test/: move it"):
        load(tmp_path)


def test_names_that_become_one_id(folder: Path, pixels: np.ndarray) -> None:
    put(folder / "cat" / "mäs 2.png", pixels[5])
    with pytest.raises(DataError, match=r"mäs 2.png \(row 2\): sample id 'cat:m-s-2.png' .* used by .*más 2.png"):
        load(folder)


def test_name_too_long_for_an_id(folder: Path, pixels: np.ndarray) -> None:
    put(folder / "cat" / f"{'x' * 70}.png", pixels[5])
    with pytest.raises(DataError, match=r"x.png \(row 2\): sample id .* must be 1 to 64 .*: rename it"):
        load(folder)


def test_corrupt_image(folder: Path) -> None:
    (folder / "dog" / "2.bmp").write_bytes(b"BM")
    with pytest.raises(DataError, match=r"dog/2.bmp \(row 2\): corrupt image \(.*\): replace the image"):
        load(folder)


def test_images_of_different_shapes(folder: Path) -> None:
    put(folder / "dog" / "3.png", np.zeros((28, 28, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"3.png \(row 3\): the image is \[3, 28, 28\] .*1.png \(row 0\) is \[1, 28, 28\]"
    ):
        load(folder)


def test_file_that_is_no_image(folder: Path) -> None:
    (folder / "dog" / "notes.txt").write_text("hm")
    with pytest.raises(DataError, match=r"dog/notes.txt: isn't an image file .*: move it away"):
        load(folder)


def test_class_directory_without_images(folder: Path) -> None:
    (folder / "fox").mkdir()
    with pytest.raises(DataError, match=r"fox: the class has no images: add some, or remove the directory"):
        load(folder)


def test_no_folder_and_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: isn't a folder: name a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no class directories: put the images into one directory for each class"):
        load(tmp_path)
