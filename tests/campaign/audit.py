"""What must hold of a project after any deletion, by means that the deletion itself doesn't use."""

from collections import Counter

import numpy as np

from amnesiac.erasure import byte_needles, id_needles, scan
from amnesiac.receipts import verify_chain
from amnesiac.verification import Version, verify
from tests.campaign.cycle import IDS, MODEL


def audit(project):
    """Everything that is wrong, as texts."""
    version = project.store.read(project.head().version)
    gone = set(version.positions())
    problems = [f"receipts: {problem}" for problem in verify_chain(project.chain.folder).problems]
    counts = Counter(stored.signed.receipt.request.id for stored in project.chain.receipts())
    problems += [f"request {name} has {counts[name]} receipts" for name in project.head().requests if counts[name] != 1]
    problems += [f"key of {k}: alive {alive}" for k, alive in enumerate(project.alive()) if alive == (k in gone)]
    problems += [f"identity: {problem}" for problem in identity(project, version)]
    problems += [
        f"{request.request_id} isn't redacted" for request in project.journal.requests() if not request.redacted
    ]
    return problems + residues(project, sorted(gone))


def identity(project, version):
    correction = version.folder / "correction.safetensors"
    said = Version(
        version.subtracted, version.positions(), (), version.facts["run_id"], version.facts["weights_sha256"],
        correction if correction.exists() else None, version.facts["correction_sha256"],
    )  # fmt: skip
    return verify(project.root / "ledger", project.root / MODEL, said, keys=project.keys).problems


def residues(project, gone, more=()):
    """Where ids of the erased, or other bytes of theirs, still lie; everywhere in the project, the journal included."""
    ids = [IDS[k] for k in gone]
    needles = id_needles(ids, [name for name in IDS if name not in ids])
    report = scan([*needles, *byte_needles(more, len(ids), encoded=True, piece=64)], [project.root])
    return [f"residue in {hit.file}: {hit.form}" for hit in report.hits] + [f"gap: {gap}" for gap in report.gaps]


def canaries(project, rows):
    """Bytes of samples that nobody may find later: their keys, and their delta rows in clear."""
    ledger = project.ledger
    keys = project.keys.keys(ledger.table["key"].to_numpy(np.int64)[rows])
    reader = ledger._reader("settled")
    return [key.tobytes() for key in keys] + [
        row.tobytes() for row in ledger._read(reader, "settled", np.asarray(rows))
    ]
