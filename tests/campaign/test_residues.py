"""After the receipt nothing of the erased is found in the whole project; what is planted is found."""

import gzip

import pytest

from tests.campaign.audit import audit, canaries, residues
from tests.campaign.cycle import IDS


@pytest.mark.parametrize("size", ["short", pytest.param("full", marks=pytest.mark.campaign)])
def test_nothing_is_left_and_what_is_planted_is_found(sealed, tmp_path, record, size):
    project, gone = sealed.copy(tmp_path / "project"), [3, 4, 30]
    marks = canaries(project, gone)
    project.file(*(IDS[k] for k in gone), name="canaries")
    assert residues(project, gone), "the journal and the cache name them until then"
    project.run()
    found = residues(project, gone, marks)
    planted = {
        "an id in a log": (project.root / "log.txt", f"... {IDS[3]} ...".encode()),
        "an id, compressed": (project.root / "old.gz", gzip.compress(IDS[4].encode())),
        "a key": (project.root / "core", b"\0" * 99 + marks[2] + b"\0"),
        "a key in hex": (project.root / "trace", marks[0].hex().encode()),
        "half a delta row": (project.root / "spool.tmp", marks[4][: len(marks[4]) // 2 + 64]),
    }
    missed = []
    for what, (path, content) in planted.items():
        path.write_bytes(content)
        if not residues(project, gone, marks):
            missed.append(what)
        path.unlink()
    caught = f"{len(planted) - len(missed)}/{len(planted)}"
    record(
        10,
        "residues",
        not found and not missed,
        looked_for="3 ids, 3 keys, 3 delta rows",
        hits=len(found),
        planted_found=caught,
    )
    assert found == []
    assert missed == []
    assert audit(project) == []
