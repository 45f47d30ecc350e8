"""The pipeline's side of an object store: what is fetched for a while, what a purge takes, what a search finds."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from amnesiac.elsewhere import move_rows
from amnesiac.erasure import Marked, id_needles
from amnesiac.keys import LocalKeyStore
from amnesiac.rowstore import RowArray, RowWriter
from amnesiac.settings import DataSettings
from amnesiac.storage import Address, Storage, object_versions
from tasks.catalog import Catalog, catalog
from tasks.clearing_objects import object_plan, purge_objects
from tasks.searching import search_objects
from tasks.storing import fetched, groups, move_out

SECTIONS = ("data", "model", "training", "capture", "unlearning", "evaluation")
PARAMS = "seed: 0\n" + "".join(f"{name}: {{}}\n" for name in SECTIONS)


@pytest.fixture
def at(versioned: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A project with a key store and an object store, and nothing else yet."""
    root = tmp_path / "project"
    (root / "pipeline_data/journal").mkdir(parents=True)
    (root / "params.yaml").write_text(f"{PARAMS}storage: {{url: '{versioned.url}'}}\n")
    monkeypatch.setenv("AMNESIAC_PROJECT", str(root))
    monkeypatch.delenv("AMNESIAC_KEYS", raising=False)
    LocalKeyStore(root / "pipeline_data/keys", create=True).ensure(["one"])
    return catalog()


def rows(group: Path, value: int) -> None:
    writer = RowWriter(RowArray(group, "settled", "run"), 4, 16)
    writer.append(np.full((4, 16), value, np.uint8))
    writer.close()


def test_a_source_is_fetched_for_a_while(at: Catalog, versioned: Storage) -> None:
    sources = versioned.below("sources")
    sources.write("a.npz", b"one")
    sources.write("images/cat/1.png", b"two")
    with fetched(DataSettings(source="npz", url=f"{sources.url}/a.npz")) as settings:
        assert settings.path is not None and settings.path.read_bytes() == b"one" and settings.path.name == "a.npz"
    with (
        pytest.raises(ZeroDivisionError),
        fetched(DataSettings(source="image-folder", url=f"{sources.url}/images")) as settings,
    ):
        assert settings.path is not None and (settings.path / "cat/1.png").read_bytes() == b"two"
        raise ZeroDivisionError
    assert not list(at.scratch.iterdir()), "it is people's data in clear"


def test_a_purge_takes_rows_that_nothing_names(at: Catalog, versioned: Storage, tmp_path: Path) -> None:
    dvc = Storage(Address(versioned.address.bucket, "dvc"))
    (at.root / ".dvc").mkdir()
    (at.root / ".dvc/config").write_text(f"[core]\n    no_scm = true\n['remote \"team\"']\n    url = {dvc.url}\n")
    for content in (b"1", b"22"):
        dvc.write("files/md5/ab/cd", content)
    rows(tmp_path / "old.zarr", 1)
    old = move_rows(tmp_path / "old.zarr", versioned.below("ledger"))
    rows(groups(at)["ledger"], 2)
    assert move_out("ledger")
    kept = {one.name for one in versioned.listed() if old not in one.name}
    gone = {(one["place"], one["what"]): one["count"] for one in purge_objects()}
    object_plan().close()
    assert gone == {(versioned.url, "rows that nothing names"): 6, (dvc.url, "older versions of objects"): 1}
    assert {one.name for one in object_versions(versioned.address)} == kept
    assert dvc.read("files/md5/ab/cd") == b"22" and len(object_versions(dvc.address)) == 1

    shutil.rmtree(groups(at)["ledger"])  # not checked out: nothing says which rows are in use
    assert purge_objects() == ()
    assert {one.name for one in object_versions(versioned.address)} == kept


@pytest.mark.parametrize("place", ["content", "older version", "name"])
def test_a_search_reads_every_version_and_shows_no_id(place: str, versioned: Storage, tmp_path: Path) -> None:
    who = "writer-4711"
    versioned.write(f"reports/{who if place == 'name' else 'a'}.json", b"nothing")
    versioned.write("reports/b.json", f"of {who}".encode() if place != "name" else b"nothing")
    if place == "older version":
        versioned.write("reports/b.json", b"nothing")
    [found] = search_objects([versioned.address], id_needles([who], set()), Marked([], b""), tmp_path)
    assert found.hits and all(versioned.url in hit.file and who not in hit.file for hit in found.hits)
    assert found.files == (3 if place == "older version" else 2) and not list(tmp_path.iterdir())
    [clean] = search_objects([versioned.address], id_needles(["writer-1"], set()), Marked([], b""), tmp_path)
    assert clean.clean and clean.places == (versioned.url,)
