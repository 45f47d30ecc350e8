"""What the command line prints: tables for people, one JSON object for programs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from rich.table import Table

from amnesiac.evaluation import judge, roles_in
from amnesiac.publication import Head, Recovery
from amnesiac.receipts import Chain
from amnesiac.requests import DeletionBatch, FilingResult
from amnesiac.verification import Verification
from flows.terminal import console, print_json
from tasks.catalog import catalog
from tasks.not_held import not_held_requests
from tasks.publishing import recovery_facts
from tasks.report_facts import published_sentence, read_version
from tasks.reporting import result_table
from tasks.requesting import request_states


def print_stage(stage: str, summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """What a stage did, or that there was nothing to do."""
    if as_json:
        print_json({"stage": stage, "ran": summary is not None, "summary": summary})
    elif summary is None:
        console.print(f"{stage}: nothing to do, all is up to date")
    else:
        table = Table("what", "value", title=stage)
        for name, value in summary.items():
            table.add_row(name, str(value))
        console.print(table)


def print_restored(found: Mapping[str, Any], summary: Mapping[str, Any] | None, as_json: bool) -> None:
    """Whether somebody erased had come back, and the batch that erased them again."""
    if as_json:
        print_json({**found, "summary": summary})
    elif not found["samples"]:
        console.print("restore: nobody who was erased can be read again")
    else:
        console.print(f"restore: {found['samples']} samples that were erased were back; request {found['request_id']}")
        print_stage("publish", summary, as_json)


def print_comparison(as_json: bool) -> None:
    """The metrics of the last evaluation."""
    metrics = json.loads(catalog().metrics.read_text())
    if as_json:
        print_json(metrics)
        return
    rows = result_table(metrics)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    for role in ("unlearned", "repaired"):
        if role in roles_in(metrics):
            console.print(judge(metrics, role).sentence)
    if sentence := published_sentence(read_version()):
        console.print(sentence)
    console.print("seconds: " + ", ".join(f"{step} {value:.3g}" for step, value in metrics["seconds"].items()))


def print_verification(found: Verification, as_json: bool) -> None:
    """What the verifier found; everything that is wrong is listed."""
    if as_json:
        print_json(asdict(found))
        return
    counts = f"{found.forgotten} samples deleted, {found.surviving} left, {found.read} of their rows read"
    if found.problems:
        console.print(f"verify: {len(found.problems)} things are wrong ({counts})")
        for problem in found.problems:
            console.print(f"- {problem}", markup=False, soft_wrap=True)
    else:
        exactly = "bit for bit" if found.identical else f"to within {found.largest_difference:.3g} (masked rows)"
        console.print(f"verify: {found.weights} is base minus surviving rows, {exactly} ({counts})", soft_wrap=True)


def print_where_to_look(run: UUID | None) -> None:
    """Report, plots and the run in the dashboard."""
    console.print(f"report:    {catalog().evaluation / 'report.html'}")
    console.print("plots:     `.venv/bin/dvc plots show`, and the PNG files beside the report")
    console.print(f"dashboard: `make dashboard`, then http://127.0.0.1:4200/runs/flow-run/{run}", soft_wrap=True)


def print_filed(result: FilingResult, as_json: bool) -> None:
    """Which requests are new and which were known."""
    filed, already = ([r.request_id for r in requests] for requests in (result.filed, result.already))
    known = _known(already)
    if as_json:
        print_json({"filed": filed, "already": already, "known": known})
        return
    console.print(f"filed {len(filed)} requests for the next deletion batch, {len(already)} were known")
    for one in known:
        receipt = f", receipt {one['receipt']}" if one["receipt"] else ""
        console.print(f"known: {one['request_id']} is {one['state']}{receipt}", soft_wrap=True)


def _known(request_ids: Sequence[str]) -> list[dict[str, str | None]]:
    """State and first receipt of requests that had been filed before."""
    states, chain = request_states(), Chain(catalog().receipts)
    found = {name: chain.find(name) for name in request_ids}
    return [
        {"request_id": name, "state": states[name], "receipt": str(stored.path) if stored else None}
        for name, stored in found.items()
    ]


def print_requests(as_json: bool) -> None:
    """All requests with their states."""
    states, missing = request_states(), {one["request_id"]: one for one in not_held_requests()[0]}
    requests = [
        {
            "request_id": r.request_id,
            "kind": r.kind,
            "values": len(r.values),
            "received": r.received,
            "state": states[r.request_id],
            "not_held": missing[r.request_id]["not_held"] if r.request_id in missing else 0,
        }
        for r in catalog().open_journal().requests()
    ]
    if as_json:
        print_json({"requests": requests} | {"counts": dict(Counter(str(r["state"]) for r in requests))})
        return
    table = Table("request", "kind", "values", "received", "state")
    for r in requests:
        *cells, state, missing_ids = map(str, r.values())
        table.add_row(*cells, f"{state}, {missing_ids} not held" if r["not_held"] else state)
    console.print(table)


def print_recovery(found: Recovery, finished: Sequence[DeletionBatch], as_json: bool) -> None:
    """What recovery did, and which published batches it carried to their receipts."""
    if as_json:
        print_json(recovery_facts(found) | {"finished": [batch.number for batch in finished]})
        return
    for done in finished:
        console.print(f"recover: batch {done.number} is {done.state}")
    if finished:
        return
    if found.batch is None and not found.swept:
        console.print("recover: nothing was left unfinished")
    else:
        batch = f"batch {found.batch.number}: {found.action}" if found.batch else "no batch was unfinished"
        console.print(f"recover: {batch}; {len(found.swept)} leftovers removed")


def print_rollback(head: Head, as_json: bool) -> None:
    """Which version is published now."""
    if as_json:
        print_json({"version": head.version, "requests": len(head.requests), "predecessor": head.predecessor})
    else:
        console.print(
            f"rollback: version {head.version[:12]} is published again, with {len(head.requests)} requests applied. "
            "The others are pending: the next batch takes them up",
            soft_wrap=True,
        )
