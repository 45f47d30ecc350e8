"""Verification of the published version: HEAD and its files, and its subtraction against the surviving rows."""

from collections.abc import Callable
from dataclasses import replace

from amnesiac.errors import InputError, RequestError, SettingsError, SpecMismatch, StoreError
from amnesiac.ledger.manifest import read_manifest
from amnesiac.publication import Head, read_positions, read_staged, read_withdrawn
from amnesiac.publication import Version as Published
from amnesiac.publication.version import CORRECTION, FORGOTTEN
from amnesiac.publication.withdrawn import WITHDRAWN
from amnesiac.receipts import Chain, verify_chain
from amnesiac.requests import STATES, Pointer, State, resolve
from amnesiac.unlearning.settled import SETTLED
from amnesiac.verification import Verification, Version, verify
from tasks.catalog import catalog
from tasks.requesting import planned_requests
from tasks.restoring import came_back
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
        original = at.model / (WITHDRAWN if read_withdrawn(at.model) else MODEL)
        found = verify(at.ledger, original, version, at.key_store())
        more = (*(_problems_of(head) if head else ()), *found.problems, *_problems_of_receipts(), *_came_back())
        return replace(found, problems=more)


def _problems_of_receipts() -> tuple[str, ...]:
    """What is wrong with the chain of receipts; every receipted batch's requests have one."""
    at = catalog()
    if not at.receipts.exists() and not _receipted():
        return ()
    found = verify_chain(at.receipts).problems
    held = {stored.signed.receipt.request.id for stored in Chain(at.receipts).receipts()} if not found else set()
    missing = [] if found else [request for request in _receipted() if request not in held]
    lost = f"{len(missing)} requests are RECEIPTED and have no receipt: restore {at.receipts} from a backup"
    return (*found, *([lost] if missing else []))


def _came_back() -> tuple[str, ...]:
    """Whether somebody who was erased can be read again."""
    count = len(came_back(catalog()))
    return (f"{count} samples that were erased can be read again: run `amnesiac restore`",) if count else ()


def _receipted() -> list[str]:
    done = [batch for batch in catalog().batches().history() if not batch.ended and batch.reached("RECEIPTED")]
    return [request_id for batch in done for request_id in batch.request_ids]


def _readable(state: State) -> bool:
    """Whether the data set still tells whom a request named."""
    return STATES.index(state) < STATES.index("KEYS_DESTROYED")


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
        _refuse_withdrawn()
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


def _refuse_withdrawn() -> None:
    if read_withdrawn(catalog().model):
        raise SpecMismatch(
            "nothing is published or staged, and the trained model was withdrawn when a version was: restore "
            f"{catalog().published} from a backup"
        )


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
    states = catalog().batches().request_states()
    readable = [r for r in requests if not r.redacted and _readable(states.get(r.request_id, "RECEIVED"))]
    named = resolve(readable, catalog().dataset().index, unknown="go_on")
    if left := set(named.rows) - set(version.positions()):
        raise SpecMismatch(
            f"{len(left)} samples of requests that version {version.id[:12]} has applied aren't among those that it "
            "forgot: run `amnesiac publish --force`"
        )
