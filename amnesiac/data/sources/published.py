"""`mnist`, `fashion-mnist`, `cifar10`, `cifar100` through torchvision: from the data root, else downloaded into it.

torchvision checks the md5 of CIFAR's files before it reads them; no other serialised Python objects are read.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amnesiac.data.listing import Listing, numbered_ids
from amnesiac.data.samples import Images
from amnesiac.data.sources.image_parquet import ParquetPart, list_parts
from amnesiac.errors import DataError

SETS: dict[str, tuple[str, str]] = {
    "mnist": (
        "MNIST",
        "MNIST/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-... and t10k-labels-...",
    ),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte and the three other IDX files"),
    "cifar10": ("CIFAR10", "the unpacked folder cifar-10-batches-py"),
    "cifar100": (
        "CIFAR100",
        "the unpacked folder cifar-100-python, or cifar100/train.parquet and cifar100/test.parquet",
    ),
}


def list_published(name: str, data_root: Path | None) -> Listing:
    """Training samples, then test samples, ids `NAME-train-00000` on and `NAME-test-00000` on.

    CIFAR-100 is read from `cifar100/train.parquet` and `test.parquet` where the data root holds them (their rows are
    in another order, so the ids say `cifar100-parquet-...`). Raises DataError when the files are neither there nor
    can be downloaded, saying where to put them.
    """
    if data_root is None:
        raise DataError(
            f"source {name!r} needs a data root, the folder that holds or receives its files: "
            "name one (environment variable AMNESIAC_DATA_ROOT), or use the embedded source 'mnist-5k'"
        )
    parquet = [data_root / name / f"{part}.parquet" for part in ("train", "test")]
    if name == "cifar100" and all(file.is_file() for file in parquet):
        parts = [ParquetPart(file, f"{name}-parquet-{file.stem}", file.stem == "test") for file in parquet]
        return list_parts(parts, "fine_label", None, name)
    return _list_torchvision(name, data_root)


def _list_torchvision(name: str, data_root: Path) -> Listing:
    train, test = (_open(name, data_root, train) for train in (True, False))
    images = np.concatenate([_channels_first(part.data) for part in (train, test)])
    n_train = len(train.data)
    ids = numbered_ids(f"{name}-train", n_train) + numbered_ids(f"{name}-test", len(images) - n_train)
    return Listing(
        source=name,  # without the data root: what is prepared is the same on every machine
        labels=np.concatenate([np.asarray(part.targets, np.int64) for part in (train, test)]),
        sample_ids=ids,
        subject_ids=ids,
        class_names=tuple("0123456789") if name == "mnist" else tuple(train.classes),
        test=np.arange(len(images)) >= n_train,
        where=lambda row: f"{data_root}: {name} {f'train row {row}' if row < n_train else f'test row {row - n_train}'}",
        decode=lambda rows, progress: images[rows],
    )


def _open(name: str, data_root: Path, train: bool) -> Any:
    """torchvision's data set, downloaded into the data root if it isn't there."""
    from torchvision import datasets  # costs 1.5 s, which commands that read no published data set shouldn't pay

    class_name, files = SETS[name]
    kind = getattr(datasets, class_name)
    try:
        with contextlib.suppress(RuntimeError):  # torchvision's "not found"
            return kind(data_root, train=train, download=False)
        with contextlib.redirect_stdout(sys.stderr):  # its messages mustn't mix with a command's output
            return kind(data_root, train=train, download=True)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, EOFError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{data_root}: {name} can't be read there or downloaded into it ({reason}): "
            f"put {files} into this folder, or name another data root"
        ) from error


def _channels_first(data: Any) -> Images:
    pixels: npt.NDArray[np.uint8] = np.asarray(data, np.uint8)
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
