"""What the command line prints: tables for people, one JSON object for programs."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from amnesiac.evaluation import judge, roles_in
from amnesiac.requests import FilingResult
from amnesiac.verification import Verification
from tasks.catalog import catalog
from tasks.deletion import applied_requests
from tasks.evaluation import published_sentence, read_version
from tasks.reporting import result_table

console = Console()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, without colours or wrapping."""
    print(json.dumps(value, indent=2))


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
    if as_json:
        print_json({"filed": filed, "already": already})
    else:
        console.print(f"filed {len(filed)} requests, {len(already)} were known: they wait for the next deletion batch")


def print_requests(as_json: bool) -> None:
    """All requests with their states."""
    applied = applied_requests()
    requests = [
        {
            "request_id": r.request_id,
            "kind": r.kind,
            "values": len(r.values),
            "received": r.received,
            "state": "applied" if r.request_id in applied else "pending",
        }
        for r in catalog().open_journal().requests()
    ]
    if as_json:
        print_json({"requests": requests} | {"counts": dict(Counter(str(r["state"]) for r in requests))})
        return
    table = Table("request", "kind", "values", "received", "state")
    for r in requests:
        table.add_row(*(str(value) for value in r.values()))
    console.print(table)
