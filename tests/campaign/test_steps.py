"""Store, model, keys and HEAD that don't belong together are refused with the reason, and nothing changes."""

import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from amnesiac.errors import AmnesiacError
from amnesiac.hashing import hash_json
from amnesiac.keys import LocalKeyStore
from amnesiac.publication import read_head
from amnesiac.verification import Version, verify
from tests.campaign.cycle import IDS, MODEL, create


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """Another run, with keys of its own, in which something was published."""
    project = create(tmp_path_factory.mktemp("foreign") / "project", seed=5)
    project.file(IDS[4], name="theirs")
    project.run()
    return project


def replace(project, foreign, *names):
    for name in names:
        path = project.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        source = foreign.root / name
        shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)


def edit_head(project, sign, **changes):
    path = project.store.folder / "HEAD.json"
    stored = json.loads(path.read_text())
    stored["head"] |= changes
    path.write_text(json.dumps(stored | ({"sha256": hash_json(stored["head"])} if sign else {})))


def alter_weights(path):
    weights = load_file(path)
    first = sorted(weights)[0]
    weights[first].view(-1)[0] += 1e-3
    save_file(weights, path)


def other_keys(project, foreign):
    shutil.rmtree(project.root / "keys")
    LocalKeyStore(project.root / "keys", create=True).ensure(["subject:x"])


CASES = {
    "another run's ledger": (lambda p, f: replace(p, f, "ledger"), "belongs to run|captured for weights"),
    "another run's model": (lambda p, f: replace(p, f, MODEL), "captured for weights .*out of step"),
    "an altered model": (lambda p, f: alter_weights(p.root / MODEL), "captured for weights .*out of step"),
    "another key store": (other_keys, "encrypted with the keys of store"),
    "another run's keys": (lambda p, f: replace(p, f, "keys"), "encrypted with the keys of store"),
    "HEAD edited": (lambda p, f: edit_head(p, False, batch=7), "HEAD.json was altered"),
    "HEAD forged": (lambda p, f: edit_head(p, True, requests=[]), "doesn't say what version"),
    "another run's HEAD": (lambda p, f: replace(p, f, "published/HEAD.json"), "isn't in"),
    "another project's journal": (lambda p, f: replace(p, f, "journal"), "leaves out|erased and redacted"),
    "a manifest altered": (
        lambda p, f: (p.root / "ledger/manifest.json").write_text(
            (p.root / "ledger/manifest.json").read_text().replace('"rows": 48', '"rows": 47', 1)
        ),
        "was altered",
    ),
}


@pytest.mark.parametrize("size", ["short", pytest.param("full", marks=pytest.mark.campaign)])
def test_what_does_not_belong_together_is_refused(pending, foreign, tmp_path, record, size):
    wrong = []
    for case, (change, reason) in CASES.items():
        project = pending.copy(tmp_path / case.replace(" ", "-").replace("'", ""))
        change(project, foreign)
        before = (project.store.folder / "HEAD.json").read_bytes()
        try:
            project.run()
            wrong.append(f"{case}: accepted")
        except AmnesiacError as error:
            if not re.search(reason, str(error)):
                wrong.append(f"{case}: {error}")
        if (project.store.folder / "HEAD.json").read_bytes() != before:
            wrong.append(f"{case}: HEAD was changed")
    found = verified(pending, foreign, tmp_path)
    wrong += [f"{case}: verify found nothing" for case, problems in found.items() if not problems]
    total = len(CASES) + len(found)
    record(8, "out of step", not wrong, refused_with_the_reason=f"{total - len(wrong)}/{total}")
    assert not wrong, wrong


def verified(pending, foreign, tmp_path):
    """What only `amnesiac verify` looks at: the base, and versions of another run."""
    project = pending.copy(tmp_path / "base")
    alter_weights(project.root / "ledger/base.safetensors")
    version = project.store.read(project.head().version)
    said = Version(
        version.subtracted, version.positions(), (), version.facts["run_id"], version.facts["weights_sha256"]
    )
    base = verify(project.root / "ledger", project.root / MODEL, said, keys=project.keys).problems
    project = pending.copy(tmp_path / "versions")
    replace(project, foreign, "published")
    try:
        read_head(project.store, project.ledger.manifest.run_id)
        head = ()
    except AmnesiacError as error:
        head = (str(error),)
    return {"an altered base": base, "another run's published versions": head}
