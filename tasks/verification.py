"""Verification of the published weights: which files, and which samples they say were deleted."""

import json
from pathlib import Path
from typing import Any

from amnesiac.errors import DamagedStore, InputError, RequestError, SettingsError, StoreError
from amnesiac.requests import Pointer, resolve
from amnesiac.unlearning.settled import SETTLED
from amnesiac.verification import Verification, Version, verify
from tasks.catalog import catalog
from tasks.deletion import CORRECTION, VERSION, planned_requests
from tasks.stages import writing
from tasks.training import MODEL


def verify_published() -> Verification:
    """Check the unlearned model, or the trained one while nothing was deleted, against the ledger.

    Raises InputError when there is nothing to verify: no model yet, or no settled rows.
    """
    at = catalog()
    for path in (at.model, at.ledger):
        if not path.exists():
            raise InputError(f"nothing to verify yet: {path} doesn't exist. Run `amnesiac train`")
    with writing("verify"):
        try:
            return verify(at.ledger, at.model / MODEL, published(), at.key_store())
        except (StoreError, RequestError) as error:  # requests that once fitted the prepared data no longer do
            return Verification(problems=(str(error),))


def published() -> Version:
    """The published weights, and the samples of the requests that they cover.

    Raises StoreError when version, journal or prepared data are damaged, SettingsError when the weights were made by
    another method than settled deltas.
    """
    at = catalog()
    if not at.unlearned.exists():
        return Version(at.model / MODEL)
    said = _version(at.unlearned / VERSION)
    if said["samples"] and said["method"] != SETTLED.name:
        raise SettingsError(
            f"{at.unlearned} was made by {said['method']!r}, whose deletions leave no identity to verify: set "
            f"unlearning.method to {SETTLED.name} and run `amnesiac unlearn`"
        )
    requests, _ = planned_requests(Pointer(**said["pointer"]))
    forget = resolve(requests, at.dataset().index)
    correction = at.unlearned / CORRECTION if said["correction_sha256"] else None
    return Version(
        at.unlearned / MODEL, forget.rows, forget.sample_ids, said["run_id"], said["weights_sha256"], correction,
        said["correction_sha256"],
    )  # fmt: skip


def _version(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DamagedStore(f"{path} can't be read: {error}. Restore it with `dvc checkout`") from error
    if missing := {"run_id", "correction_sha256"} - set(said):
        raise DamagedStore(f"{path} lacks {', '.join(sorted(missing))}: run `amnesiac unlearn --force`")
    return said
