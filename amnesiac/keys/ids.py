"""Ids of samples and subjects, encrypted with their sample's key, and what an erased sample is called afterwards."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amnesiac.errors import DamagedStore
from amnesiac.keys.encryption import seal_texts, unseal_texts
from amnesiac.keys.store import KeyStore, Mask, Numbers
from amnesiac.page_digests import RefusedRow

if TYPE_CHECKING:
    import pandas as pd

ERASED_ID = re.compile(r"erased-\d+")


def erased_id(row: int) -> str:
    """What an erased sample is called, in memory only: its ids are gone, its row isn't."""
    return f"erased-{row}"


def erased_mask(index: "pd.DataFrame") -> Mask:
    """Which rows of a prepared data set's index are erased samples, bool `[n]`."""
    placeholders = "erased-" + index["row"].astype(str)
    return (index["sample_id"].astype(str) == placeholders).to_numpy(bool)


def seal_ids(
    keys: KeyStore, numbers: Numbers, samples: Sequence[str], subjects: Sequence[str], owner: str
) -> list[bytes]:
    """Both ids of each sample as one encrypted text, bound to its row and to `owner` (data set or run)."""
    texts = [json.dumps(pair) for pair in zip(samples, subjects, strict=True)]
    return seal_texts(keys, numbers, texts, f"{owner}|ids")


def unseal_ids(
    path: Path, keys: KeyStore, numbers: Numbers, sealed: Sequence[bytes], owner: str
) -> tuple[list[str], list[str]]:
    """Sample ids and subject ids, both `erased-ROW` where the key was destroyed.

    Raises DamagedStore naming `path` and the row whose ids were altered.
    """
    try:
        texts = unseal_texts(keys, numbers, sealed, f"{owner}|ids")
    except RefusedRow as error:
        raise DamagedStore(
            f"{path}: the ids of row {error.at} were altered: {error}. Restore it with `dvc checkout`"
        ) from error
    pairs = [json.loads(text) if text is not None else [erased_id(k)] * 2 for k, text in enumerate(texts)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
