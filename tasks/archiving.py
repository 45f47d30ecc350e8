"""The report of every published batch, kept after the next one: without pictures, with what happened to it since.

`evaluation/` holds the newest comparison and is DVC's. The archive takes its record when the batch is published, and
brings it up to date once the batch is erased and receipted: it is called again and again, and does what is due.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from amnesiac.errors import DamagedStore
from amnesiac.requests import DeletionBatch
from tasks.catalog import catalog
from tasks.evaluation import read_record, write_pages
from tasks.opaque import opaque
from tasks.report_facts import batch_facts
from tasks.storing import copied


@task(name="archive the reports", cache_policy=NO_CACHE, persist_result=False)
@opaque
def archive_reports() -> list[int]:
    """Bring the archive up to date; the numbers of the batches whose reports were written."""
    return archived_reports()


def archived_reports() -> list[int]:
    """The same outside of a flow; the object store's copies of reports and receipts follow."""
    newest, number = _newest(), _published_batch()
    batches = [batch for batch in catalog().batches().history() if batch.reached("PUBLISHED")]
    written = [b.number for b in batches if _archived(b, newest if b.number == number else None)]
    copied()
    return written


def archive_folder(number: int) -> Path:
    """Where the report of a batch lies, or will."""
    return catalog().reports / f"batch-{number:06d}"


def _archived(batch: DeletionBatch, newest: Mapping[str, Any] | None) -> bool:
    """Write a batch's report unless it is there as it would be written."""
    kept = read_record(archive_folder(batch.number))
    if kept and newest and _measured_on(newest) < _measured_on(kept):
        newest = None  # evaluated again since its samples were erased: the kept figures can't be had any more
    if kept is None and newest is None:
        return False  # it was published without an evaluation
    if kept is not None and _settled(kept, batch) and newest is None:
        return False
    record = dict(newest or kept or {})
    record["facts"] = replace(record["facts"], batch=batch_facts(batch))
    if record == kept:
        return False
    write_pages(archive_folder(batch.number), record)
    return True


def _measured_on(record: Mapping[str, Any]) -> int:
    """How many forgotten samples could be read."""
    return int(record["metrics"]["samples"]["forget"])


def _settled(kept: Mapping[str, Any], batch: DeletionBatch) -> bool:
    """Whether the report knows all that has happened to the batch: nothing has to be looked up then."""
    known = kept["facts"].batch
    return known is not None and set(known.states) == {event.state for event in batch.events}


def _newest() -> Mapping[str, Any] | None:
    """The record of the last evaluation, if it is of the published version."""
    at, head = catalog(), catalog().head()
    record = read_record(at.evaluation) if head else None
    if head is None or record is None:
        return None
    return record if at.store().read(head.version).facts["weights_sha256"] == record["version"] else None


def _published_batch() -> int | None:
    head = catalog().head()
    return head.batch if head else None


def batch_links(batch: DeletionBatch) -> tuple[dict[str, Path], list[dict[str, str]]]:
    """For the dashboard: the batch's report by its title, and its requests with deadlines and receipts."""
    page = archive_folder(batch.number) / "report.html"
    asked = [
        {"request": one.request_id, "kind": one.kind, "due": one.due, "receipt": str(one.receipt or "not yet")}
        for one in batch_facts(batch).asked
    ]
    return ({f"report of batch {batch.number}": page} if page.exists() else {}), asked


def archived_report(number: int, suffix: str) -> bytes | None:
    """A kept report as it lies on disk ("html", "md" or "json"); None where there is none. Raises DamagedStore."""
    path = archive_folder(number) / f"report.{suffix}"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedStore(f"{path} can't be read ({error}): restore it from a backup") from error


def archived_verdict(number: int) -> dict[str, str] | None:
    """Level and sentence of a kept report, for lists; None where there is none."""
    found = archived_report(number, "json")
    try:
        return {name: str(json.loads(found)["verdict"][name]) for name in ("level", "sentence")} if found else None
    except (ValueError, KeyError, TypeError) as error:
        path = archive_folder(number) / "report.json"
        raise DamagedStore(f"{path} can't be read ({error}): restore it from a backup, or delete its folder") from error
