"""A deletion batch from state to state: recover, plan, note what was staged and evaluated, publish, roll back."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.runtime import flow_run
from prefect.states import Completed

from amnesiac.durable import sweep
from amnesiac.errors import AmnesiacError
from amnesiac.evaluation import judge
from amnesiac.hashing import hash_file
from amnesiac.publication import Head, Recovery, publish, read_staged, recover, roll_back
from amnesiac.requests import DeletionBatch, ForgetSet, State, pending, read_pointer
from tasks.catalog import catalog
from tasks.handing_in import file_handed_in
from tasks.opaque import opaque
from tasks.report_facts import ROLES
from tasks.requesting import (
    applied_requests,
    opaque_ids,
    pending_requests,
    plan_requests,
    planned_requests,
    resolved,
    waiting,
)
from tasks.restoring import came_back, refuse_unnamed
from tasks.stages import is_stale, writing
from tasks.storing import mirrored

_FIGURES = ("forget_accuracy", "retain_accuracy", "test_accuracy", "kl_forget", "kl_test")
_log = logging.getLogger("amnesiac.publishing")


def recover_now() -> Recovery:
    """Put right what a killed run left, under the writer lock: before PUBLISHED back, after it forward."""
    with writing("recover"):
        swept = sweep(catalog().scratch.parent)
        found = recover(catalog().batches(), catalog().store())
    if found.batch and (found.action != "goes on" or found.batch.reached("KEYS_DESTROYED")):  # not where it only rests
        _log.warning("deletion batch %d was left unfinished: %s", found.batch.number, found.action)
    return Recovery(found.batch, found.action, (*swept, *found.swept))


@task(name="recover", cache_policy=NO_CACHE, persist_result=False)
@opaque
def recover_batch() -> Recovery:
    """`recover_now` at the beginning of a run; the object store follows, where a run was killed before it did."""
    found = recover_now()
    mirrored()
    return found


@contextmanager
def abandoned_on_error() -> Iterator[None]:
    """What fails in the block leaves no unfinished batch behind: its requests are received again at once."""
    try:
        yield
    except BaseException:
        try:
            recover_now()
        except AmnesiacError as error:  # the first error says more; the next run recovers, or says this again
            _log.error("recovery failed too: %s", type(error).__name__)
        raise


@task(name="plan the batch", cache_policy=NO_CACHE, persist_result=False)
@opaque
def plan_batch(force: bool, patient: bool) -> DeletionBatch | None:
    """RECEIVED → PLANNED: a batch over what is pending, resolved to rows; None when there is nothing to publish.

    Requests that are filed from now on belong to the next batch. `patient`: wait for `recurrence.minimum_requests`.
    Raises UnknownSample when a request names what the data set doesn't hold, unless the settings say to go on: then
    that is noted as keyed hashes, and the batch carries out the rest. Raises SpecMismatch when samples that were erased
    are back from a backup, and no request names them.
    """
    if patient and waiting(pending_requests()):
        return None
    file_handed_in()  # by a run that was killed before it filed
    back = came_back(catalog())
    refuse_unnamed(back, catalog().open_journal().requests())
    plan_requests()
    new = pending(planned_requests(read_pointer(catalog().requests)), applied_requests())
    if not (new or force or _changed()):
        return None
    batch = catalog().batches().open([request.request_id for request in new])
    forget = resolved(new)
    facts = {"requests": len(new), "samples": len(forget.rows), "not_trained": forget.not_trained, "run": flow_run.id}
    facts |= {"restored": len(back)} if back else {}
    return _reached(batch, "PLANNED", facts | _missing(forget))


def _missing(forget: ForgetSet) -> dict[str, Any]:
    if not forget.not_held:
        return {}
    count = sum(map(len, forget.not_held.values()))
    _log.warning("%d of the ids that %d requests name aren't held", count, len(forget.not_held))
    return {"not_held": opaque_ids(forget.not_held)}


def idle() -> RunState[Any]:
    """Why a run did nothing, as the state that it ends in."""
    if new := len(pending_requests()):
        wanted = catalog().params().recurrence.minimum_requests
        return Completed(name="Waiting", message=f"{new} requests are pending, a scheduled batch waits for {wanted}")
    return Completed(name="Nothing to do", message="no request is pending, and nothing else has changed")


@task(name="note what was staged", cache_policy=NO_CACHE, persist_result=False)
@opaque
def staged(batch: DeletionBatch) -> DeletionBatch:
    """PLANNED → STAGED: the candidate lies in `unlearned/`, synced."""
    said = read_staged(catalog().unlearned)
    names = ("weights_sha256", "published", "samples", "rows", "method")
    verdict = (said["confidence"] or {}).get("verdict")
    return _reached(batch, "STAGED", {name: said[name] for name in names} | {"confidence": verdict})


@task(name="note the evaluation", cache_policy=NO_CACHE, persist_result=False)
@opaque
def evaluated(batch: DeletionBatch, evaluate: bool) -> DeletionBatch:
    """STAGED → EVALUATED: with the figures of what is to be published, or that nobody asked for them."""
    return _reached(batch, "EVALUATED", _measured() if evaluate else {"evaluated": False})


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
@opaque
def publish_version(batch: DeletionBatch) -> DeletionBatch:
    """EVALUATED → PUBLISHED: the candidate becomes a version and HEAD, in one rename."""
    at = catalog()
    head = publish(at.batches(), batch, at.store(), at.unlearned)
    mirrored()
    after = latest(batch)
    _log.info("batch %d: PUBLISHED, version %s, %d requests", batch.number, head.version[:12], len(head.requests))
    return after


def latest(batch: DeletionBatch) -> DeletionBatch:
    """The batch as the journal has it now."""
    return next(found for found in catalog().batches().history() if found.number == batch.number)


def reach(batch: DeletionBatch, to: State, work: Callable[[DeletionBatch], Mapping[str, Any]]) -> DeletionBatch:
    """Carry a batch into a later state: `work` does it and returns what to note; nothing if it is there already.

    `work` is repeated after a crash, so it must be idempotent.
    """
    return batch if batch.reached(to) else _reached(batch, to, work(batch))


def roll_back_head() -> Head:
    """Publish HEAD's predecessor again, under the writer lock; raises InputError, BatchConflict, SpecMismatch."""
    with writing("rollback"):
        recover_now()
        head = roll_back(catalog().batches(), catalog().store())
        mirrored()
    return head


def batch_summary(batch: DeletionBatch) -> dict[str, Any]:
    """A batch for the dashboard: its states with times, and counts; no id of a person."""
    head = catalog().head()
    states = {event.state: event.at for event in batch.events}
    covered = {"version": head.version[:12], "requests applied": len(head.requests)} if head else {}
    missing = {"requests with ids not held": len(named)} if (named := batch.facts("PLANNED").get("not_held")) else {}
    return {"batch": batch.number, "new requests": len(batch.request_ids)} | missing | covered | states


def _reached(batch: DeletionBatch, to: State, facts: Mapping[str, Any]) -> DeletionBatch:
    after = catalog().batches().advance(batch, to, facts)
    _log.info("batch %d: %s, %d requests", batch.number, to, len(batch.request_ids))
    return after


def _changed() -> bool:
    """Whether what is staged, or would be, is another version than HEAD."""
    at, head = catalog(), catalog().head()
    return head is None or is_stale("unlearn") or at.store().id_of(at.unlearned) != head.version


def _measured() -> dict[str, Any]:
    """The evaluation's figures of the weights that are to be published."""
    at = catalog()
    metrics, role = json.loads(at.metrics.read_text()), ROLES[read_staged(at.unlearned)["published"]]
    figures = {name: metrics[role][name] for name in _FIGURES}
    sentence = judge(metrics, role).sentence if role != "retrained" else "The model was retrained without the samples."
    return {"evaluated": True, "role": role, "metrics_sha256": hash_file(at.metrics), "verdict": sentence} | figures


def recovery_facts(found: Recovery) -> dict[str, Any]:
    """As JSON."""
    batch = {"number": found.batch.number, "state": found.batch.state} if found.batch else None
    return {name: value for name, value in asdict(found).items() if name != "batch"} | {"batch": batch}
