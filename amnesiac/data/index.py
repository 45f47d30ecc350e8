"""The index of a prepared data set on disk: ids in clear, or encrypted with their sample's key.

    in clear    row, sample_id, subject_id, label, class_name, split
    encrypted   row, key, label, class_name, split, ids: `key` is the number of the sample's data key, `ids` both ids,
                encrypted

An erased sample, whose key is gone, keeps its row: its ids are then `erased-ROW`, in memory only.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from amnesiac.data.samples import Samples
from amnesiac.errors import DataError
from amnesiac.keys import ERASED_ID, KeyStore, seal_ids, unseal_ids
from amnesiac.keys.store import Numbers

_COLUMNS = ["row", "sample_id", "subject_id", "label", "class_name", "split"]


def refuse_erased_ids(samples: Samples) -> None:
    """Raise DataError where a real id looks like an erased sample's."""
    for row, ids in enumerate(zip(samples.sample_ids, samples.subject_ids, strict=True)):
        if taken := [name for name in ids if ERASED_ID.fullmatch(name)]:
            raise DataError(
                f"{samples.source}: row {row}: the id {taken[0]!r} is what erased samples are called: rename it"
            )


def encrypted_index(index: pd.DataFrame, keys: KeyStore, numbers: Numbers, owner: str) -> pd.DataFrame:
    """The index as it goes to disk, its ids encrypted with keys `numbers` and bound to the data set `owner`."""
    sealed = seal_ids(keys, numbers, index["sample_id"].tolist(), index["subject_id"].tolist(), owner)
    return index.assign(key=numbers, ids=sealed)[["row", "key", "label", "class_name", "split", "ids"]]


def readable_index(path: Path, table: pd.DataFrame, keys: KeyStore | None, owner: str) -> pd.DataFrame:
    """The index in memory, always with the columns of one in clear; raises DamagedStore for altered ids."""
    if keys is None:
        return table
    samples, subjects = unseal_ids(path, keys, table["key"].to_numpy(np.int64), table["ids"].tolist(), owner)
    return table.assign(sample_id=samples, subject_id=subjects)[_COLUMNS]
