"""A data set on disk: images as checked rows, an index as parquet, and the record that seals both.

    samples.zarr    row array "images": one row is one image's bytes, in the order train, validation, test
    index.parquet   row, sample_id, subject_id, label, class_name, split (encrypted: see `amnesiac.data.index`)
    dataset.json    see `amnesiac.data.record`; written last, so a folder without it is unfinished

With a key store, images and ids are encrypted with their sample's key.
No file holds a time: two runs on the same data and settings, with the same key store, give the same bytes, in any
destination.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from amnesiac.data.index import encrypted_index, refuse_erased_ids
from amnesiac.data.record import Record, library_versions, write_record
from amnesiac.data.samples import Images, Rows, Samples, check_samples
from amnesiac.data.splits import split_rows
from amnesiac.durable import whole_folder
from amnesiac.errors import SettingsError
from amnesiac.hashing import hash_file, hash_json
from amnesiac.keys import Encrypted, KeyStore, sample_name
from amnesiac.page_digests import Bytes2D
from amnesiac.rowstore import Checksum, RowArray, RowSeal, RowWriter
from amnesiac.settings import DataSettings

GROUP, ROWS, INDEX = "samples.zarr", "images", "index.parquet"
WRITE_ROWS = 1024


@dataclass(frozen=True)
class DatasetSummary:
    """What `prepare_dataset` wrote: samples of each split, subjects, classes, image shape and content hash."""

    source: str
    counts: dict[str, int]
    subjects: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    content_hash: str


def prepare_dataset(
    samples: Samples, settings: DataSettings, seed: int, destination: Path, keys: KeyStore | None = None
) -> DatasetSummary:
    """Check, split and write `samples`; `destination` appears whole, or stays as it was.

    keys: makes a key for each sample that has none, and encrypts what belongs to them; None: all lies in clear

    Raises DataError for malformed samples, SettingsError for a mean or std that doesn't fit the channels.
    """
    check_samples(samples)
    refuse_erased_ids(samples)
    channels = samples.images.shape[1]
    mean, std = (_by_channel(name, getattr(settings, name), channels) for name in ("mean", "std"))
    splits = split_rows(samples, settings, seed)
    index = _index(samples, splits)
    order = np.concatenate(list(splits.values()))
    content = content_hash(samples, splits, mean, std)
    seal: RowSeal = Checksum()
    if keys is not None:
        numbers = keys.ensure([sample_name(sample) for sample in index["sample_id"]])
        seal, index = Encrypted(keys, numbers), encrypted_index(index, keys, numbers, content)
    with whole_folder(destination) as folder:
        rows_root = _write_images(RowArray(folder / GROUP, ROWS, content, seal), samples.images, order)
        index.to_parquet(folder / INDEX, index=False)
        record = Record(
            source=samples.source,
            image_shape=_image_shape(samples.images),
            dtype=str(samples.images.dtype),
            class_names=samples.class_names,
            seed=seed,
            splits={name: len(rows) for name, rows in splits.items()},
            mean=mean,
            std=std,
            content_hash=content,
            rows_root=rows_root,
            index_hash=hash_file(folder / INDEX),
            versions=library_versions(),
            store_id=keys.store_id if keys else None,
        )
        write_record(folder, record)
    return _summary(record, samples)


def content_hash(samples: Samples, splits: dict[str, Rows], mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """SHA-256 over what training can see: images, labels, sample ids, splits, classes, mean and std.

    Subjects are left out: to learn later who owns a sample doesn't make a trained ledger another one's.
    """
    order = np.concatenate(list(splits.values()))
    outline = {
        "images": [str(samples.images.dtype), *samples.images.shape],
        "splits": {name: len(rows) for name, rows in splits.items()},
        "sample_ids": [samples.sample_ids[row] for row in order.tolist()],
        "classes": len(samples.class_names),
        "mean": mean,
        "std": std,
    }
    digest = hashlib.sha256(hash_json(outline).encode())
    digest.update(samples.labels[order].astype("<i8").tobytes())
    for rows in _blocks(order):
        digest.update(image_bytes(samples.images[rows]).tobytes())
    return digest.hexdigest()


def image_bytes(images: Images) -> Bytes2D:
    """Images `[n, c, h, w]` as rows of bytes `[n, row_bytes]`, floats little-endian."""
    stored = np.ascontiguousarray(images, images.dtype.newbyteorder("<"))
    return stored.reshape(len(stored), -1).view(np.uint8)


def _write_images(array: RowArray, images: Images, order: Rows) -> str:
    writer = RowWriter(array, len(order), int(images[0].nbytes))
    for rows in _blocks(order):
        writer.append(image_bytes(images[rows]))
    return writer.close()


def _blocks(order: Rows) -> list[Rows]:
    return [order[start : start + WRITE_ROWS] for start in range(0, len(order), WRITE_ROWS)]


def _index(samples: Samples, splits: dict[str, Rows]) -> pd.DataFrame:
    order = np.concatenate(list(splits.values()))
    names = np.array(samples.class_names, object)
    return pd.DataFrame(
        {
            "row": np.arange(len(order), dtype=np.int64),
            "sample_id": np.array(samples.sample_ids, object)[order],
            "subject_id": np.array(samples.subject_ids, object)[order],
            "label": samples.labels[order],
            "class_name": names[samples.labels[order]],
            "split": np.repeat(list(splits), [len(rows) for rows in splits.values()]),
        }
    )


def _by_channel(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise SettingsError(
            f"data.{name} has {len(values)} values, the images {channels} channels: give 1 or {channels}"
        )
    return values * channels if len(values) == 1 else values


def _image_shape(images: Images) -> tuple[int, int, int]:
    channels, height, width = images.shape[1:]
    return channels, height, width


def _summary(record: Record, samples: Samples) -> DatasetSummary:
    return DatasetSummary(
        source=record.source,
        counts=record.splits,
        subjects=len(set(samples.subject_ids)),
        class_names=record.class_names,
        image_shape=record.image_shape,
        content_hash=record.content_hash,
    )
