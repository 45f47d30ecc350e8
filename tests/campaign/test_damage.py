"""A row that was altered, lost, swapped or replaced is refused before anything is published, and named."""

import shutil

import pytest

from amnesiac.errors import DamagedRow, StoreError
from tests.campaign.cycle import IDS, N, create
from tests.campaign.sizes import sizes

KINDS = ("bit flip", "truncation", "deletion", "swap with a neighbour", "an older copy")


@pytest.fixture(scope="session")
def other(sealed, tmp_path_factory):
    """Another run's ledger, encrypted with the same keys."""
    folder = tmp_path_factory.mktemp("other") / "project"
    shutil.copytree(sealed.root / "keys", folder / "keys")
    return create(folder, seed=5)


def shard(project, name="settled"):
    [path] = [path for path in (project.root / f"ledger/rows.zarr/{name}/c").rglob("*") if path.is_file()]
    return path


def damage(project, kind, row, other):
    """To the bytes of one row, as they lie in the shard."""
    path, width = shard(project), project.ledger.row_bytes("settled")
    content, old = bytearray(path.read_bytes()), shard(other).read_bytes()
    start, beside = row * width, (row + 1) % N * width
    one, two = content[start : start + width], content[beside : beside + width]
    if kind == "bit flip":
        content[start + (row * 37) % width] ^= 1 << row % 8
    elif kind == "truncation":
        content = content[: start + width // 2]
    elif kind == "deletion":
        content[start : start + width] = bytes(width)
    elif kind == "swap with a neighbour":
        content[start : start + width], content[beside : beside + width] = two, one
    else:
        content[start : start + width] = old[start : start + width]
    path.write_bytes(content)


@sizes(24, 1)
def test_every_row_of_a_ledger_damaged_in_five_ways(sealed, other, tmp_path, record, size):
    trials, missed, unnamed = 0, [], []
    for row in range(0, N, size):
        project = sealed.copy(tmp_path / "damaged")
        project.file(IDS[row])
        whole = shard(project).read_bytes()
        for kind in KINDS:
            damage(project, kind, row, other)
            assert shard(project).read_bytes() != whole
            trials += 1
            try:
                project.run()
            except DamagedRow as error:
                if IDS[row] not in str(error):
                    unnamed.append((row, kind, str(error)))
            if project.head() is not None or not all(project.alive()):
                missed.append((row, kind))
            shard(project).write_bytes(whole)
        project.run()
        assert project.store.read(project.head().version).positions() == (row,), "mended, it goes through"
        shutil.rmtree(project.root)
    facts = {
        "trials": trials,
        "detected": f"{trials - len(missed)}/{trials}",
        "row_named": f"{trials - len(unnamed)}/{trials}",
    }
    record(5, "rows", not missed and not unnamed, **facts)
    assert not missed
    assert not unnamed


def test_an_older_row_with_its_tag_is_refused_with_the_array(sealed, other, tmp_path):
    """The manifest holds a digest over all tags."""
    project = sealed.copy(tmp_path / "project")
    for name in ("settled", "settled.tags"):
        path = project.root / f"ledger/rows.zarr/{name}"
        shutil.rmtree(path)
        shutil.copytree(other.root / f"ledger/rows.zarr/{name}", path)
    project.file(IDS[3])
    with pytest.raises(StoreError, match="the checksums of 'settled' don't match the manifest"):
        project.run()
    assert project.head() is None
