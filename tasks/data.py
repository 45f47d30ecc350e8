"""Prepare the data: read a source, check it, write it as the pipeline wants it."""

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.data import LeftOut, leave_out, load_samples, prepare_dataset
from amnesiac.erasure import Tombstones
from tasks.catalog import catalog, data_root
from tasks.opaque import opaque
from tasks.progress import shown_progress
from tasks.storing import PREPARED, fetched, move_out


@task(name="prepare data", cache_policy=NO_CACHE, persist_result=False)
@opaque
def prepare_data() -> dict[str, Any]:
    """Read, check, leave erased people out, split and write the samples; the summary as JSON."""
    at, params = catalog(), catalog().params()
    with shown_progress("prepare-data", f"reading {params.data.source}") as progress:
        with fetched(params.data) as data:
            samples = load_samples(data, data_root(), params.seed, progress)
        erased = Tombstones(at.tombstones).mask(samples.sample_ids, samples.subject_ids)
        samples, left_out = leave_out(samples, erased)
        summary = prepare_dataset(samples, params.data, params.seed, at.prepared, at.key_store(create=True))
    move_out(PREPARED)
    return asdict(summary) | _shown(left_out)


def _shown(left_out: LeftOut) -> dict[str, Any]:
    """What was left out, as the summary names it: counts and class names, never an id."""
    return {
        "erased_left_out": left_out.samples,
        "classes_left_out": left_out.classes,
        "left_out_with_their_class": left_out.others,
    }
