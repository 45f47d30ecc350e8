"""Real images for the data tests: the embedded digits, and the data root where there is one."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from amnesiac.data import Samples, load_samples
from amnesiac.settings import DataSettings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_root() -> Path:
    given = os.environ.get("AMNESIAC_DATA_ROOT")
    root = Path(given) if given else REPOSITORY.parent / "shared" / "datasets"
    if not root.is_dir():
        pytest.skip(f"no data root: {root} doesn't exist (set AMNESIAC_DATA_ROOT to a folder with MNIST/raw, cifar100)")
    return root


@pytest.fixture(scope="session")
def mnist_root(data_root: Path) -> Path:
    if not (data_root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"MNIST isn't in the data root: {data_root / 'MNIST/raw/train-images-idx3-ubyte'} is missing")
    return data_root


@pytest.fixture(scope="session")
def cifar100_root(data_root: Path) -> Path:
    for name in ("train", "test"):
        if not (data_root / "cifar100" / f"{name}.parquet").is_file():
            pytest.skip(f"CIFAR-100 isn't in the data root: {data_root / f'cifar100/{name}.parquet'} is missing")
    return data_root


@pytest.fixture(scope="session")
def digits() -> Samples:
    """60 embedded digits, six a class."""
    return load_samples(DataSettings(source="mnist-5k", limit=60), None, seed=0)


@pytest.fixture(scope="session")
def pixels(digits: Samples) -> np.ndarray:
    """The same digits as [60, 28, 28]."""
    return digits.images[:, 0]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def encode() -> Callable[[np.ndarray], bytes]:
    return png


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Write images (arrays, or bytes as they are, or None) and columns in the image-parquet layout."""

    def write(
        path: Path,
        images: Sequence[Any],
        image_column: str = "img",
        metadata: dict[str, str] | None = None,
        row_group_size: int = 4,
        **columns: Any,
    ) -> Path:
        encoded = [png(image) if isinstance(image, np.ndarray) else image for image in images]
        structs = pa.array(
            [{"bytes": data, "path": None} for data in encoded], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
        table = pa.table({image_column: structs, **columns})
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group_size)
        return path

    return write
