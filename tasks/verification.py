"""Verification of the published version: HEAD and its files, and its subtraction against the surviving rows."""

from collections.abc import Callable
from dataclasses import replace

from amnesiac.errors import InputError, RequestError, SettingsError, SpecMismatch, StoreError
from amnesiac.ledger.manifest import read_manifest
from amnesiac.publication import Head, read_positions, read_staged
from amnesiac.publication import Version as Published
from amnesiac.publication.version import CORRECTION, FORGOTTEN
from amnesiac.requests import Pointer, resolve
from amnesiac.unlearning.settled import SETTLED
from amnesiac.verification import Verification, Version, verify
from tasks.catalog import catalog
from tasks.requesting import planned_requests
from tasks.stages import writing
from tasks.training import MODEL


def verify_published() -> Verification:
    """Check HEAD (or, while nothing is published, the staged or the trained model) against the ledger.

    Raises InputError when there is nothing to verify: no model yet, or no settled rows.
    """
    at = catalog()
    for path in (at.model, at.ledger):
        if not path.exists():
            raise InputError(f"nothing to verify yet: {path} doesn't exist. Run `amnesiac train`")
    with writing("verify"):
        try:
            head = at.head()
            version = _of_head(head) if head else _of_staged()
        except (StoreError, RequestError) as error:  # nothing says which weights, and which samples were deleted
            return Verification(problems=(str(error),))
        found = verify(at.ledger, at.model / MODEL, version, at.key_store())
        return replace(found, problems=(*(_problems_of(head) if head else ()), *found.problems))


def _of_head(head: Head) -> Version:
    """What HEAD's subtraction gave; what repair or retraining made of it leaves no identity."""
    version, index = catalog().store().read(head.version), catalog().dataset().index
    facts = version.facts
    _refuse_other_methods(facts["method"], facts["samples"], str(version.folder))
    positions = version.positions()
    ids = index.loc[index["split"] == "train"].set_index("row").loc[list(positions), "sample_id"].astype(str)
    correction = version.folder / CORRECTION if facts["correction_sha256"] else None
    return Version(
        version.subtracted, positions, tuple(ids), head.run_id, facts["weights_sha256"], correction,
        facts["correction_sha256"],
    )  # fmt: skip


def _of_staged() -> Version:
    """The candidate, and the samples of the requests that it covers; the trained model where nothing was staged."""
    at = catalog()
    if not at.unlearned.exists():
        return Version(at.model / MODEL)
    said = read_staged(at.unlearned)
    _refuse_other_methods(said["method"], said["samples"], str(at.unlearned))
    planned_requests(Pointer(**said["pointer"]))
    positions = read_positions(at.unlearned / FORGOTTEN)
    correction = at.unlearned / CORRECTION if said["correction_sha256"] else None
    return Version(
        at.unlearned / MODEL, positions, (), said["run_id"], said["weights_sha256"], correction,
        said["correction_sha256"],
    )  # fmt: skip


def _refuse_other_methods(method: str, samples: int, where: str) -> None:
    if samples and method != SETTLED.name:
        raise SettingsError(
            f"{where} was made by {method!r}, whose deletions leave no identity to verify: set unlearning.method to "
            f"{SETTLED.name} and run `amnesiac publish`"
        )


def _problems_of(head: Head) -> tuple[str, ...]:
    """What is wrong with HEAD beside the identity: files, ledger, journal."""
    version = catalog().store().read(head.version)
    checks: tuple[Callable[[], None], ...] = (
        version.check,
        lambda: _check_roots(head),
        lambda: _check_journal(version),
    )
    problems = []
    for check in checks:
        try:
            check()
        except (StoreError, RequestError) as error:
            problems.append(str(error))
    return tuple(problems)


def _check_roots(head: Head) -> None:
    entries = read_manifest(catalog().ledger).entries
    if {name: entry.root for name, entry in entries.items()} != dict(head.ledger_roots):
        raise SpecMismatch(
            f"HEAD was published from other rows than those of {catalog().ledger}: they are out of step. Restore the "
            "ledger with `dvc checkout`"
        )


def _check_journal(version: Published) -> None:
    """All that the requests name (as far as they aren't redacted) is forgotten."""
    requests = planned_requests(Pointer(**version.facts["pointer"]))
    named = resolve([request for request in requests if not request.redacted], catalog().dataset().index)
    if left := set(named.rows) - set(version.positions()):
        raise SpecMismatch(
            f"{len(left)} samples of requests that version {version.id[:12]} has applied aren't among those that it "
            "forgot: run `amnesiac publish --force`"
        )
