"""The identity: published weights = base + correction - sum of surviving rows, rounded once (method.md §8.4).

All terms are multiples of 2^-40 and small, so float64 holds every partial sum exactly: the comparison is bit for bit
(the sign of a zero aside), whatever the order of the rows. Only masked rows leave room for rounding, see `decoding`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from amnesiac.errors import DamagedStore, KeyDestroyed, SpecMismatch, StoreError
from amnesiac.keys import KeyStore
from amnesiac.rowstore import RowSeal
from amnesiac.verification.comparison import Difference, compare, expected_weights
from amnesiac.verification.decoding import slack
from amnesiac.verification.rows import Ints, RowSum, sum_rows
from amnesiac.verification.sealed import BASE, SAMPLES, Sealed, read_sealed
from amnesiac.verification.tensors import REMEDY, Tensors, hash_arrays, read_tensors
from amnesiac.verification.trained import read_trained

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """The published weights, and what is said of them.

    forgotten:  positions of the deleted samples in the training split;  sample_ids: theirs, () if not to be checked
    run_id:     of the run whose ledger was used;  weights_sha256: the weights' content hash; None: not to be checked
    correction: the file of what deletions added beyond their rows' plain sum, with its content hash; None for nothing
    """

    weights: Path
    forgotten: tuple[int, ...] = ()
    sample_ids: tuple[str, ...] = ()
    run_id: str | None = None
    weights_sha256: str | None = None
    correction: Path | None = None
    correction_sha256: str | None = None


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    weights:            the file that was checked, "" where that isn't known
    identical:          the published weights are bit for bit what the ledger gives
    largest_difference: of a weight from that; None where it couldn't be computed
    differing:          number of differing weights by parameter, without those that are the same
    rows, read, surviving, forgotten: rows of the ledger, rows read and found whole, samples still in, samples deleted
    problems:           everything that is wrong, in sentences; () when all is right
    """

    weights: str = ""
    identical: bool = False
    largest_difference: float | None = None
    differing: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    read: int = 0
    surviving: int = 0
    forgotten: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Surviving:
    """Ledger rows of the samples that weren't deleted, these samples' positions, and how rows are protected."""

    rows: Ints
    positions: Ints
    seal: RowSeal


def verify(ledger: Path, original: Path, version: Version, keys: KeyStore | None = None) -> Verification:
    """Check published weights against a sealed ledger.

    ledger: its folder;  original: the trained model's weights file, or withdrawn.json, which is left of it
    keys: the store that the ledger is encrypted with

    Rows of erased samples can't be read and needn't be, as long as all of these were deleted. What is damaged or
    doesn't fit is named in the result's `problems`. Raises SettingsError when the ledger has no settled rows.
    """
    problems: list[str] = []
    sealed = _noted(problems, partial(read_sealed, ledger, keys))
    if sealed is None:
        return Verification(str(version.weights), forgotten=len(version.forgotten), problems=tuple(problems))
    for check in _checks(sealed, version):
        _noted(problems, check)
    surviving = _noted(problems, partial(_surviving, sealed, version))
    summed = _noted(problems, partial(_summed, sealed, surviving, problems)) if surviving else None
    difference = _difference(sealed, original, version, summed, problems)
    counted = Verification(
        str(version.weights), rows=sealed.n_rows, read=summed.read if summed else 0,
        surviving=len(surviving.rows) if surviving else 0,
        forgotten=len(version.forgotten), problems=tuple(problems),
    )  # fmt: skip
    if difference is None:
        return counted
    return replace(
        counted,
        identical=difference.identical,
        largest_difference=difference.largest,
        differing=difference.differing,
        problems=(*problems, *difference.sentences()),
    )


def _noted(problems: list[str], read: Callable[[], T]) -> T | None:
    """What `read` returns; what it raises about the store becomes a problem, and the verification goes on."""
    try:
        return read()
    except StoreError as error:
        problems.append(str(error))
        return None


def _checks(sealed: Sealed, version: Version) -> Iterator[Callable[[], object]]:
    """What must hold beside the identity: everything is of one run, and no file of the ledger was altered."""
    yield partial(_check_run, sealed, version)
    for name in sorted(set(sealed.files) - {BASE, SAMPLES}):  # these two are read, and checked, below
        yield partial(sealed.check, name)


def _check_run(sealed: Sealed, version: Version) -> None:
    if version.run_id not in (None, sealed.run_id):
        raise SpecMismatch(
            f"{version.weights} was unlearned from run {version.run_id}, {sealed.folder} belongs to run "
            f"{sealed.run_id}: they are out of step. Run `amnesiac unlearn`, or restore both with `dvc checkout`"
        )


def _surviving(sealed: Sealed, version: Version) -> _Surviving:
    samples = sealed.samples()
    rows, forgotten = samples.rows, np.array(version.forgotten, np.int64)
    unknown = forgotten[(forgotten < 0) | (forgotten >= len(rows))]
    ids = () if len(unknown) else tuple(samples.ids[position] for position in forgotten.tolist())
    if len(unknown) or version.sample_ids not in ((), ids):
        raise SpecMismatch(
            f"the deleted samples aren't those of {sealed.folder / SAMPLES}: prepared data and ledger are out of step. "
            "Restore both with `dvc checkout`, or train again"
        )
    if (never := forgotten[rows[forgotten] < 0]).size:
        raise SpecMismatch(
            f"{never.size} deleted samples were never captured, the first at position {never[0]}: their part can't "
            "have been subtracted. Run `amnesiac unlearn`"
        )
    kept = rows >= 0
    kept[forgotten] = False
    if (lost := np.flatnonzero(kept & samples.erased)).size:
        raise KeyDestroyed(
            f"{lost.size} training samples were erased but aren't among the deleted ones, the first at position "
            f"{lost[0]}: their rows can't be read, and the weights still hold their part. Check out the version that "
            "their deletion published"
        )
    positions = np.flatnonzero(kept)
    positions = positions[np.argsort(rows[positions], kind="stable")]
    return _Surviving(rows[positions], positions, samples.seal)


def _summed(sealed: Sealed, surviving: _Surviving, problems: list[str]) -> RowSum:
    found = sum_rows(sealed, surviving.seal, surviving.rows, surviving.positions)
    problems += found.problems
    return found


def _difference(
    sealed: Sealed, original: Path, version: Version, summed: RowSum | None, problems: list[str]
) -> Difference | None:
    """Read what the identity needs beside the rows, and compare; None if any part of it is missing."""
    base = _noted(problems, partial(sealed.tensors, BASE))
    published = _noted(problems, partial(read_tensors, version.weights))
    trained = _noted(problems, partial(read_trained, original))
    correction = _noted(problems, partial(_correction, version))
    if trained is not None and trained.weights_sha256 != sealed.final_sha256:
        problems.append(
            f"{original} isn't the model that {sealed.folder} (run {sealed.run_id}) was captured for: it was altered, "
            "or they are out of step. Restore both with `dvc checkout`"
        )
    if published is not None and version.weights_sha256 not in (None, hash_arrays(published)):
        problems.append(f"{version.weights} was altered after it was published: its hash is another. {REMEDY}")
    if base is None or trained is None or published is None or correction is None or summed is None:
        return None
    if summed.total is None:
        return None
    expected = expected_weights(base, correction, summed.total)
    return compare(published, trained.tensors, expected, slack(sealed.codec, sealed.n_rows))


def _correction(version: Version) -> Tensors:
    """What deletions added beyond their rows; raises DamagedStore when it is missing or altered."""
    if version.correction is None:
        return {}
    correction = read_tensors(version.correction)
    if version.correction_sha256 != hash_arrays(correction):
        raise DamagedStore(f"{version.correction} was altered: its hash isn't the one that was published. {REMEDY}")
    return correction
