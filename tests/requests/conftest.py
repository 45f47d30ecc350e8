"""An index as `prepare` writes it: train rows first, then validation and test."""

import secrets
from collections.abc import Callable

import pandas as pd
import pytest

CLASSES = ("zero", "one", "two")


def build_index(n_train: int = 12, n_other: int = 3, per_subject: int = 2) -> pd.DataFrame:
    """Samples s0, s1, …; two neighbours share a subject; labels 0, 1, 2 in turn."""
    n = n_train + 2 * n_other
    return pd.DataFrame(
        {
            "row": range(n),
            "sample_id": [f"s{k}" for k in range(n)],
            "subject_id": [f"p{k // per_subject}" for k in range(n)],
            "label": [k % 3 for k in range(n)],
            "class_name": [CLASSES[k % 3] for k in range(n)],
            "split": ["train"] * n_train + ["validation"] * n_other + ["test"] * n_other,
        }
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request) -> str | None:
    """Where the journal lies: None for a file in its folder, else a new schema of the test's server."""
    if request.param == "sqlite":
        return None
    return request.getfixturevalue("postgresql").url(f"t_{secrets.token_hex(6)}")


@pytest.fixture
def index() -> pd.DataFrame:
    return build_index()


@pytest.fixture
def make_index() -> Callable[..., pd.DataFrame]:
    return build_index


@pytest.fixture(scope="session")
def shared_index() -> pd.DataFrame:
    """For property tests, which may not use a fixture of one test; don't change it."""
    return build_index()
