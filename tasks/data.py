"""Prepare the data: read a source, check it, write it as the pipeline wants it."""

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.data import load_samples, prepare_dataset
from tasks.catalog import catalog, data_root
from tasks.opaque import opaque
from tasks.progress import shown_progress


@task(name="prepare data", cache_policy=NO_CACHE, persist_result=False)
@opaque
def prepare_data() -> dict[str, Any]:
    """Read, check, split and write the samples; the summary as JSON."""
    at, params = catalog(), catalog().params()
    with shown_progress("prepare-data", f"reading {params.data.source}") as progress:
        samples = load_samples(params.data, data_root(), params.seed, progress)
        summary = prepare_dataset(samples, params.data, params.seed, at.prepared, at.key_store(create=True))
    return asdict(summary)
