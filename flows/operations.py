"""Commands that carry deletions to their end (publish, recover, restore, rollback) and show where they are (status,
history).
"""

from typing import Annotated

import typer

from flows.session import ready

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def publish(
    force: Annotated[
        bool, typer.Option("--force", help="Stage, evaluate and publish even if nothing changed.")
    ] = False,
    evaluate: Annotated[bool, typer.Option(help="Compare with retraining before publishing.")] = True,
    as_json: Json = False,
) -> None:
    """Stage what is stale, evaluate, and publish all pending requests. Example: [bold]amnesiac publish --json[/]

    Recovers first what a killed run left. The swap of HEAD.json is the moment at which the deletion takes effect.
    """
    with ready():
        from flows.console import print_stage
        from flows.unlearn_batch import unlearn_batch as flow

        result = flow(force, evaluate)
        print_stage("publish", result if isinstance(result, dict) else None, as_json)


def recover(as_json: Json = False) -> None:
    """Put right what a killed run left: before PUBLISHED back, after it forward. Example: [bold]amnesiac recover[/]

    A published batch is carried to its receipts, once its grace time is over. Every run does this as well.
    """
    with ready(server=False):
        from flows.console import print_recovery
        from tasks.publishing import recover_now
        from tasks.receipting import finish_due

        found = recover_now()
        print_recovery(found, finish_due(), as_json)


def restore(
    evaluate: Annotated[bool, typer.Option(help="Compare with retraining before publishing.")] = True,
    as_json: Json = False,
) -> None:
    """After a backup was restored: erase again whoever was erased since. Example: [bold]amnesiac restore --json[/]

    Journal, tombstones and receipts must be the newest, kept apart from the backup (docs/backup.md).
    """
    with ready():
        from flows.console import print_restored
        from flows.unlearn_batch import unlearn_batch as flow
        from tasks.restoring import file_restored

        found = file_restored()
        result = flow(False, evaluate) if found.request_id or found.missing else None
        print_restored(found.facts(), result if isinstance(result, dict) else None, as_json)


def rollback(as_json: Json = False) -> None:
    """Publish HEAD's predecessor again, until its keys are destroyed. Example: [bold]amnesiac rollback[/]

    The requests between the two versions are pending again: the next batch takes them up.
    """
    with ready(server=False):
        from flows.console import print_rollback
        from tasks.publishing import roll_back_head

        print_rollback(roll_back_head(), as_json)


def status(as_json: Json = False) -> None:
    """Requests, deadlines, HEAD, drift, schedule. Example: [bold]amnesiac status --json[/]

    Exit code 1 if a request is overdue: one calendar month after receipt.
    """
    with ready(server=False):
        from flows.standing import print_status
        from tasks.status import status as read_status

        found = read_status()
        print_status(found, as_json)
        if found["overdue"]:
            raise typer.Exit(1)


def history(as_json: Json = False) -> None:
    """Published versions with times, requests and drift; which is HEAD. Example: [bold]amnesiac history --json[/]"""
    with ready(server=False):
        from flows.standing import print_history
        from tasks.status import history as read_history

        print_history(read_history(), as_json)
