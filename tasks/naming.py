"""Names of flow runs: what this run does, without an id of a person."""

from collections.abc import Callable

from amnesiac.errors import AmnesiacError
from amnesiac.publication import read_staged
from tasks.catalog import catalog
from tasks.requesting import pending_requests


def prepare_name() -> str:
    """E.g. "prepare mnist-5k"."""
    return _named("prepare data", lambda: f"prepare {catalog().params().data.source}")


def train_name() -> str:
    """E.g. "train mlp on mnist-5k"."""
    params = catalog().params
    return _named("train", lambda: f"train {params().model.factory} on {params().data.source}")


def unlearn_name() -> str:
    """E.g. "unlearn 2 requests, settled"."""
    return _named(
        "unlearn", lambda: f"unlearn {len(pending_requests())} requests, {catalog().params().unlearning.method}"
    )


def stage_name() -> str:
    """E.g. "stage settled"."""
    return _named("stage", lambda: f"stage {catalog().params().unlearning.method}")


def evaluate_name() -> str:
    """E.g. "evaluate settled, 419 forgotten"."""
    return _named("evaluate", lambda: f"evaluate {catalog().params().unlearning.method}, {_forgotten():,} forgotten")


def _forgotten() -> int:
    """Training samples that the staged version is without; raises DamagedStore."""
    return int(read_staged(catalog().unlearned)["samples"])


def audit_name() -> str:
    """E.g. "audit settled"."""
    return _named("audit", lambda: f"audit {catalog().params().unlearning.method}")


def trial_name() -> str:
    """E.g. "trial settled"."""
    return _named("trial", lambda: f"trial {catalog().params().unlearning.method}")


def _named(fallback: str, describe: Callable[[], str]) -> str:
    """The description; the fallback where settings or journal can't be read, which the run itself will report."""
    try:
        return describe()
    except AmnesiacError:
        return fallback
