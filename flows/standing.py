"""What `amnesiac status` and `amnesiac history` print; imports nothing that takes long."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.terminal import console, print_json


def print_status(found: Mapping[str, Any], as_json: bool) -> None:
    """Requests by state, alarms, HEAD, what is unfinished, the schedule."""
    if as_json:
        print_json(found)
        return
    states = ", ".join(f"{count} {state}" for state, count in found["requests"].items()) or "none"
    console.print(f"requests:   {states}; {found['pending']} pending", soft_wrap=True)
    for name, alarm in (("overdue", "[bold red]OVERDUE[/]"), ("due_soon", "due soon")):
        if found[name]:
            console.print(f"deadlines:  {alarm}: {', '.join(found[name])}", soft_wrap=True)
    for one in found["not_held"]:
        stops = ": the next batch stops there (requests.unknown)" if one["blocks"] else ""
        what = f"{one['not_held']} of {one['named']} ids of {one['request_id']}{stops}"
        console.print(f"not held:   {what}; opaque ids: --json", soft_wrap=True, markup=False)
    if found["unresolvable"]:
        console.print(f"pending:    can't be looked up: {found['unresolvable']}", soft_wrap=True, markup=False)
    console.print(f"HEAD:       {_head_line(found['head'])}", soft_wrap=True)
    unfinished = found["unfinished"]
    state = f"batch {unfinished['number']} is {unfinished['state']}: `amnesiac recover`" if unfinished else "none"
    console.print(f"unfinished: {state}")
    for batch in found["resting"]:
        console.print(f"resting:    batch {batch['number']} isn't erased yet: {batch['why']}", soft_wrap=True)
    console.print(f"schedule:   {_schedule_line(found['schedule'])}", soft_wrap=True)


def _head_line(head: Mapping[str, Any] | None) -> str:
    if head is None:
        return "nothing is published yet: run `amnesiac publish`"
    before = head["predecessor"][:12] if head["predecessor"] else "none"
    drift = "–" if head["drift"] is None else f"{head['drift']:.3g}"
    if drift != "–" and (most := f"{head['drift_at_most']:.3g}") != drift:
        drift += f" (at most {most})"
    return (
        f"version {head['version'][:12]} of {head['published_at']}, {head['requests']} requests, {head['samples']} "
        f"samples, drift {drift}, predecessor {before}"
    )


def _schedule_line(schedule: Mapping[str, Any]) -> str:
    when = f"cron {schedule['cron']}" if schedule["cron"] else f"every {schedule['interval_seconds']:g} s"
    return (
        f"{when} (`amnesiac serve`), from {schedule['minimum_requests']} requests or a wait of "
        f"{schedule['maximum_wait_seconds']:g} s" + (": waiting for more" if schedule["waiting"] else "")
    )


def print_history(found: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Publications, the oldest first."""
    if as_json:
        print_json({"versions": list(found)})
        return
    table = Table("batch", "version", "published", "state", "requests", "samples", "drift", "")
    for one in found:
        drift = "–" if one["drift"] is None else f"{one['drift']:.3g}"
        note = "HEAD" if one["head"] else "" if one["kept"] else "purged"
        cells = (one["batch"], one["version"][:12], one["at"], one["state"], one["requests"], one["samples"])
        table.add_row(*map(str, cells), drift, note)
    wide = console if console.is_terminal else Console(width=140)  # a pipe or a file has no width to fit into
    wide.print(table)
