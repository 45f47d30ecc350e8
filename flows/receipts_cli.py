"""`amnesiac receipt` and `amnesiac recipient`: what was deleted, proved; and who was told of it.

`receipt show|verify|page FILE` work anywhere, with a receipt and a public key; the others in a project's folder.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from amnesiac.receipts import PublicKey, Recipient, SignedReceipt

receipt = typer.Typer(no_args_is_help=True, help="Show and verify receipts of deletions.")
recipient = typer.Typer(no_args_is_help=True, help="Note who received the model, and who was told of a deletion.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
File = Annotated[Path, typer.Argument(help="A receipt, e.g. pipeline_data/receipts/00000001.json")]
Key = Annotated[
    Path | None, typer.Option(help="PEM file of the public key. Else public/ beside the receipt, which proves less.")
]
When = Annotated[str | None, typer.Option(help="ISO-8601 UTC, e.g. 2026-11-23T09:54:00Z; now, if not given.")]
Note = Annotated[str, typer.Option(help="How, or to whom exactly.")]


@receipt.command("list")
def receipt_list(as_json: Json = False) -> None:
    """List the project's receipts. Example: [bold]amnesiac receipt list --json[/]"""
    with _errors_as_lines():
        from amnesiac.receipts import Chain

        stored = Chain(_receipts()).receipts()
        if as_json:
            print(json.dumps({"receipts": [_line(one.signed) | {"file": str(one.path)} for one in stored]}, indent=2))
            return
        _print_table(("number", "request", "received", "subjects", "file"), [
            (s.sequence, s.receipt.request.id, s.receipt.request.received, s.receipt.subjects, one.path)
            for one in stored for s in [one.signed]
        ])  # fmt: skip


@receipt.command("show")
def receipt_show(file: File, public_key: Key = None, as_json: Json = False) -> None:
    """Print a receipt once its signature is checked. Example: [bold]amnesiac receipt show 00000001.json[/]"""
    with _errors_as_lines():
        from amnesiac.receipts import as_text

        signed = _verified(file, public_key)
        print(json.dumps(_facts(signed), indent=2) if as_json else as_text(signed), end="\n" if as_json else "")


@receipt.command("verify")
def receipt_verify(
    file: Annotated[Path | None, typer.Argument(help="A receipt, or a folder of them: then the whole chain.")] = None,
    public_key: Annotated[
        list[Path] | None, typer.Option(help="PEM file of a public key; several for a chain with older keys.")
    ] = None,
    witness: Annotated[
        list[Path] | None, typer.Option(help="A receipt or head.json kept elsewhere, which the chain must hold.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a receipt, or the project's chain. Example: [bold]amnesiac receipt verify 1.json --public-key key.pem[/]

    A file and a public key are enough: no project, no network. Exit codes: 1 something is wrong, and it says what.
    """
    with _errors_as_lines():
        place = file or _receipts()
        if place.is_dir() or not file:
            _verify_chain(place, public_key or [], witness or [], as_json)
        elif witness:
            raise typer.BadParameter("--witness is for a chain: name its folder")
        else:
            _print_verified(_verified(place, *(public_key or [])), bool(public_key), as_json)


@receipt.command("page")
def receipt_page(
    file: File,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    public_key: Key = None,
    as_json: Json = False,
) -> None:
    """Write a receipt as a page for people. Example: [bold]amnesiac receipt page 00000001.json --out receipt.html[/]"""
    with _errors_as_lines():
        from amnesiac.durable import write_bytes
        from amnesiac.receipts import as_page

        signed = _verified(file, public_key)
        write_bytes(out, as_page(signed).encode())
        print(json.dumps({"page": str(out)} | _line(signed), indent=2) if as_json else f"wrote {out}")


@recipient.command("add")
def recipient_add(
    name: Annotated[str, typer.Argument(help="Who received the model.")],
    version: Annotated[str, typer.Option(help="Which version: its id, or the sha256 of the weights.")],
    at: When = None,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Note who received a version. Example: [bold]amnesiac recipient add Clinic --version 3f2a[/]"""
    with _errors_as_lines():
        _print_noted(_register().add(name, version, at or _now(), note), name, as_json)


@recipient.command("notified")
def recipient_notified(
    name: Annotated[str, typer.Argument(help="Who was told.")],
    request: Annotated[str, typer.Option(help="The deletion request that they were told of.")],
    at: When = None,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Note who was told of a deletion. Example: [bold]amnesiac recipient notified Clinic --request r1[/]"""
    with _errors_as_lines():
        _print_noted(_register().notified(name, request, at or _now(), note), name, as_json)


@recipient.command("list")
def recipient_list(
    request: Annotated[str | None, typer.Option(help="Only who has yet to be told of this deletion.")] = None,
    as_json: Json = False,
) -> None:
    """List recipients, versions and notices. Example: [bold]amnesiac recipient list --request r1[/]"""
    with _errors_as_lines():
        found = _register().to_notify(request, _published(request)) if request else _register().recipients()
        if as_json:
            print(json.dumps({"recipients": [asdict(one) for one in found]}, indent=2))
        else:
            _print_recipients(found)


def _verify_chain(folder: Path, keys: list[Path], witnesses: list[Path], as_json: bool) -> None:
    from amnesiac.receipts import read_public_key, verify_chain

    trusted = [read_public_key(path) for path in keys] or None
    found = verify_chain(folder, trusted, witnesses)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        right = "every receipt is signed and in its place" if not found.problems else "the chain is not whole"
        print(f"{folder}: {found.receipts} receipts, {right}", *(f"- {one}" for one in found.problems), sep="\n")
        _warn_of_near_keys(bool(keys))
    if found.problems:
        raise typer.Exit(1)


def _verified(file: Path, *public_keys: Path | None) -> "SignedReceipt":
    """The receipt, checked with the first key that fits; raises DamagedReceipt, ReceiptError."""
    from amnesiac.errors import ReceiptError
    from amnesiac.receipts import read_public_key, read_public_keys
    from amnesiac.receipts.statement import read_receipt_file

    given = [path for path in public_keys if path]
    keys: list[PublicKey] = [read_public_key(path) for path in given] or list(read_public_keys(file.parent / "public"))
    if not keys and file.exists():
        raise ReceiptError(f"{file.parent / 'public'} holds no public key: name one with --public-key FILE.pem")
    return read_receipt_file(file, keys)


def _print_verified(signed: "SignedReceipt", given: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"verified": True, "key_given": given} | _line(signed), indent=2))
        return
    print(f"receipt {signed.sequence} of request {signed.receipt.request.id} is signed by key {signed.keyid}")
    _warn_of_near_keys(given)


def _warn_of_near_keys(given: bool) -> None:
    if not given:
        typer.echo(
            "The public key lay beside the receipt, and whoever could alter the one could replace the other: compare "
            "its id with what its owner told you, or name a key that you trust with --public-key.", err=True,
        )  # fmt: skip


def _line(signed: "SignedReceipt") -> dict[str, Any]:
    return {
        "sequence": signed.sequence,
        "request": signed.receipt.request.id,
        "received": signed.receipt.request.received,
        "keyid": signed.keyid,
        "sha256": signed.sha256,
    }


def _facts(signed: "SignedReceipt") -> dict[str, Any]:
    from amnesiac.receipts.facts import to_json

    return _line(signed) | {"previous": signed.previous, "deletion": to_json(signed.receipt)}


def _print_noted(new: bool, name: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"recipient": name, "noted": new}, indent=2))
    else:
        print(f"noted {name}" if new else f"that was noted before: {name}")


def _print_recipients(found: "tuple[Recipient, ...]") -> None:
    _print_table(("recipient", "received", "at", "told of"), [
        (one.name, event.about, event.at, ", ".join(notice.about for notice in one.notified))
        for one in found for event in one.received
    ])  # fmt: skip


def _print_table(titles: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    Console().print(table)


def _published(request_id: str) -> str:
    """When the deletion was published, as its receipt says; now, if it has none yet."""
    from amnesiac.receipts import Chain

    stored = Chain(_receipts()).find(request_id)
    return stored.signed.receipt.states.get("PUBLISHED", _now()) if stored else _now()


def _register() -> Any:
    from amnesiac.receipts import Recipients
    from tasks.catalog import catalog

    _receipts()
    return Recipients(catalog().journal)


def _receipts() -> Path:
    project = Path(os.environ.get("AMNESIAC_PROJECT", "."))
    if not (project / "params.yaml").exists():
        raise typer.BadParameter(f"{project.resolve()} holds no params.yaml: run this in the project's folder")
    from tasks.catalog import catalog

    return catalog().receipts


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    from amnesiac.errors import AmnesiacError, InputError

    try:
        yield
    except AmnesiacError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
