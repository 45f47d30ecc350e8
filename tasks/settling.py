"""Settling rows on Dask, where params.yaml chooses it: spans of samples at once, written by the process that seals."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.errors import StoreError
from amnesiac.ledger import SettledPart, Spread, settle_span
from tasks.catalog import catalog
from tasks.opaque import opaque
from tasks.parallel import in_order, on_dask

_AHEAD = 2  # spans a worker: one that it settles, one that waits to be written


@task(name="settle rows", task_run_name="settle rows {first} to {stop}", cache_policy=NO_CACHE, persist_result=False)
@opaque
def settle_rows(spool: Path, first: int, stop: int) -> SettledPart:
    """The rows of a span of samples, in clear: they go to the process that seals through Dask's memory alone.

    Raises StoreError where the project's folder isn't the one that seals.
    """
    if not spool.exists():
        raise StoreError(
            f"{spool} isn't there: Dask's workers must see this project's folder, at the same path: mount it "
            "there, or remove orchestration.address"
        )
    return settle_span(spool, range(first, stop))


def spread_settling() -> Spread | None:
    """How rows are settled: None, in the process that seals, unless the settings choose Dask."""
    return _on_workers if on_dask() else None


def _on_workers(spool: Path, spans: Sequence[range]) -> Iterator[SettledPart]:
    ahead = _AHEAD * catalog().params().orchestration.workers
    return in_order([(settle_rows, (spool, span.start, span.stop)) for span in spans], ahead)
