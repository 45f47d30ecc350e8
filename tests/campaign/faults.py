"""Ten and two faults, each planted in the product's code in a process: the campaign's checks must catch every one.

`faults.py NAME BASE WORK` prints which checks failed. A campaign that passes with one of these proves nothing.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import amnesiac.publication.candidate as candidate
import amnesiac.publication.head as head
import amnesiac.requests.batches as batches
from amnesiac.errors import AmnesiacError, StaleWriter
from amnesiac.keys import Encrypted, LocalKeyStore
from amnesiac.keys.encryption import NONCE_BYTES
from amnesiac.publication import publish, read_head
from amnesiac.receipts import Chain
from amnesiac.requests import Journal
from tests.campaign import cycle
from tests.campaign.audit import audit
from tests.campaign.cycle import IDS, STEPS, Cycle
from tests.campaign.killing import Trials
from tests.publication.kills import forked

EVERY = 5


def keys_first():
    """Keys are destroyed before the version is published."""
    real = STEPS["PUBLISHED"]

    def step(project, batch):
        project.keys.destroy(project.ledger.table["key"].to_numpy(np.int64)[project.rows(batch)])
        return real(project, batch)

    STEPS["PUBLISHED"] = step


def head_first():
    """HEAD names a version that isn't written yet."""

    def late(all_batches, batch, store, staged):
        now = read_head(store)
        facts = _staged(staged)
        named = cycle_head(store.id_of(staged), facts, batch, now)
        with all_batches.advancing(batch, "PUBLISHED", {"version": named["version"], "samples": facts["samples"]}):
            head.write_json(store.folder / "HEAD.json", {"head": named, "sha256": head.hash_json(named)})
            store.write(staged)
        return read_head(store)

    cycle.publish = late


def _staged(folder):
    return json.loads((folder / "version.json").read_text())


def cycle_head(version, facts, batch, now):
    return {
        "version": version, "requests": facts["requests"], "run_id": facts["run_id"], "fence": batch.fence,
        "ledger_roots": facts["ledger_roots"], "base_sha256": facts["base_sha256"],
        "predecessor": now.version if now else None, "batch": batch.number,
    }  # fmt: skip


def head_in_place():
    """HEAD is written over in place, in two parts."""

    def plain(path, value):
        text = json.dumps(value)
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(text[len(text) // 2 :])

    head.write_json = plain


def noted_first():
    """The journal says that keys are destroyed before they are."""

    def step(project, batch):
        ledger, rows = project.ledger, project.new_rows()
        after = project.batches.advance(batch, "KEYS_DESTROYED", {"keys": len(rows), "epoch": 1, "rows": len(rows)})
        project.keys.destroy(ledger.table["key"].to_numpy(np.int64)[rows])
        return after

    STEPS["KEYS_DESTROYED"] = step


def tag_not_checked():
    """Rows are decrypted without looking at their tag (CTR is what GCM does underneath)."""

    def unseal(self, stored, tags, index, contexts):
        clear = np.empty_like(stored)
        for k, number in enumerate(self.store.keys(self._numbers(index))):
            key = _row_key(number)
            nonce = tags[k, :NONCE_BYTES].tobytes() + b"\0\0\0\2"
            clear[k] = np.frombuffer(
                Cipher(algorithms.AES(key), modes.CTR(nonce)).decryptor().update(stored[k].tobytes()), np.uint8
            )
        return clear

    Encrypted.unseal = unseal


def _row_key(data_key):
    return hashlib.blake2b(key=data_key.tobytes(), person=b"amnesiac rows 1").digest()[:32]


def fence_not_checked():
    """A writer that was taken for dead goes on."""
    batches._current = lambda connection, batch: batches._one(connection, batch.number)


def receipt_twice():
    """Appending doesn't look whether the request has a receipt."""

    def learn(self):
        self._seen = max([0, *self.numbers()])

    Chain._learn = learn


def cache_forgotten():
    """The purge leaves out the cache, and the scan, too, doesn't look there."""
    real, looked = cycle.targets, cycle.places
    cycle.targets = lambda project: [target for target in real(project) if target.place != "cache"]
    cycle.places = lambda project: [path for path in looked(project) if path.name != "cache"]


def not_redacted():
    """Requests keep their values after the receipt."""
    Journal.redact = lambda self, names: 0


def correction_not_summed():
    """Of several batches' corrections only the last one is kept."""
    candidate._sum = lambda one, two: one if two is None else two


def subtracted_twice():
    """What a version before has forgotten is subtracted again."""
    real = candidate.unlearn

    def again(settings, ledger, weights, rows, *, before=(), master=None):
        return real(settings, ledger, weights, sorted({*rows, 40}), before=(), master=master)

    candidate.unlearn = again


def keys_kept():
    """Keys aren't destroyed, only counted."""

    class Counted:
        def __init__(self, numbers):
            self.destroyed, self.already, self.epoch = len(numbers), 0, 1

    LocalKeyStore.destroy = lambda self, numbers: Counted(numbers)


FAULTS = {
    "keys destroyed before publishing": keys_first,
    "HEAD before its version": head_first,
    "HEAD written in place": head_in_place,
    "keys noted before they are destroyed": noted_first,
    "tag not checked": tag_not_checked,
    "fence not checked": fence_not_checked,
    "receipt appended twice": receipt_twice,
    "cache forgotten": cache_forgotten,
    "redaction skipped": not_redacted,
    "correction not summed": correction_not_summed,
    "subtracted twice": subtracted_twice,
    "keys kept": keys_kept,
}


def killed(base, work):
    """The kills, at every change, every fifth first; some faults show at one point alone."""
    try:
        trials = Trials(base, work, "deletion")
        total = trials.count("mutations")
        spread = [point for offset in range(EVERY) for point in range(1 + offset, total + 1, EVERY)]
        for point in spread:
            if wrong := trials.trial("mutations", point)["wrong"]:
                return [f"killed at change {point}: {problem}" for problem in wrong]
    except AssertionError as error:
        return [f"a process ended with an error: {error}"]
    return []


def damaged(base, work):
    """A flipped bit in the row that is to be deleted."""
    project = base.copy(work / "damaged")
    [path] = [path for path in (project.root / "ledger/rows.zarr/settled/c").rglob("*") if path.is_file()]
    content = bytearray(path.read_bytes())
    content[5 * project.ledger.row_bytes("settled") + 9] ^= 4
    path.write_bytes(content)
    before = project.found()
    try:
        project.run()
    except AmnesiacError:
        return []
    return ["a damaged row was published"] if project.found() != before else []


def overtaken(base, work):
    """A second writer takes over while the first is about to publish."""
    project = base.copy(work / "overtaken")
    batch = project.begin()
    for state in ("PLANNED", "STAGED", "EVALUATED"):
        batch = STEPS[state](project, batch)
    project.batches.take_over(batch)
    try:
        publish(project.batches, batch, project.store, project.staged)
    except StaleWriter:
        return []
    return ["a writer with an old fence has published"]


def audited(base, work):
    """Two classes go, each in two batches; then everything is looked at."""
    project = base.copy(work / "audited")
    try:
        project.run()
        for label in (0, 1):
            for part in (IDS[label:24:3], IDS[24 + label :: 3]):
                project.file(*part)
                project.run()
        project.file(IDS[11], name="one-more")
        batch = project.run()
        project.chain.append(
            project.chain.read(1).signed.receipt,
            cycle.ensure_signing_key(project.root / "signing", project.chain.public),
        )
        return audit(project) if batch else ["nothing was done"]
    except (AmnesiacError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


CHECKS = {"audit": audited, "damage": damaged, "two writers": overtaken, "kills": killed}


def main(name, base, work):
    if name != "none":
        FAULTS[name]()
    found = {}
    for check, of in CHECKS.items():
        if check == "kills" and "AMNESIAC_CAMPAIGN_SKIP_KILLS" in os.environ:
            continue
        (work / check).mkdir()
        run = (lambda: of(Cycle(base), work / check)) if check != "kills" else None  # noqa: B023
        found[check] = forked(run) if run else killed(base, work / check)
        if found[check]:
            break
    print(json.dumps({check: problems for check, problems in found.items() if problems}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
