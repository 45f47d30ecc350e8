"""Whatever is altered, lost or out of step is named, and nothing else is."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from amnesiac.hashing import hash_json
from amnesiac.settings import SettledSettings
from amnesiac.verification.tensors import hash_arrays
from tests.verification.conftest import CLASS, SAMPLES, N


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def sign(project, **changes):
    """Write the manifest anew with other content and a digest that fits; `settled` changes the rows' entry."""
    path = project.ledger / "manifest.json"
    content = json.loads(path.read_text())["manifest"]
    content["entries"]["settled"] |= changes.pop("settled", {})
    content |= changes
    path.write_text(json.dumps({"manifest": content, "sha256": hash_json(content)}))


@pytest.fixture
def version(project):
    return project.publish(SAMPLES)


@pytest.mark.parametrize("place", [0, 17, -1], ids=["exponent", "number", "last number"])
def test_a_flipped_bit_in_a_row(project, version, place):
    row = bytearray(project.read_row(7))
    row[place] ^= 1
    project.write_row(7, row)
    found = project.verify(version)
    [problem] = found.problems
    assert problem.startswith(f"{project.ledger}/rows.zarr: row 7 of 'settled', of the training sample at position 7,")
    assert problem.endswith("is damaged: it was altered, lost or swapped. Restore it with `dvc checkout`")
    assert (found.identical, found.largest_difference, found.read) == (False, None, N - len(SAMPLES) - 1)


def test_swapped_rows_though_the_sum_stays_the_same(project, version):
    one, two = project.read_row(2), project.read_row(30)
    project.write_row(2, two)
    project.write_row(30, one)
    problems = project.verify(version).problems
    assert [problem.partition(", is damaged")[0].rpartition(" ")[2] for problem in problems] == ["2", "30"]


def test_lost_rows_are_listed_up_to_a_point(project, version):
    project.shard.unlink()
    problems = project.verify(version).problems
    assert len(problems) == 21
    assert problems[-1] == f"and {N - len(SAMPLES) - 20} more rows of 'settled' are damaged"


def test_lost_row_arrays(project, version):
    shutil.rmtree(project.ledger / "rows.zarr/settled")
    [problem] = project.verify(version).problems
    assert "row array 'settled' can't be opened" in problem


def test_altered_checksums(project, version):
    [tags] = [path for path in (project.ledger / "rows.zarr/settled.tags/c").rglob("*") if path.is_file()]
    flip(tags, 16 * 9)
    problems = project.verify(version).problems
    assert "row 0 of 'settled', of the training sample at position 0, is damaged" in problems[0]
    assert len(problems) == 21, "the whole page's rows: whose tag is right isn't known any more"


def test_digests_of_checksums_that_were_altered(project, version):
    path = project.ledger / "rows.zarr/settled.tags/zarr.json"
    said = json.loads(path.read_text())
    said["attributes"]["groups"][0] = "0" * 64
    path.write_text(json.dumps(said))
    assert "the checksums of 'settled' aren't those of the manifest" in project.verify(version).problems[0]


@pytest.mark.parametrize("name", ["base.safetensors", "samples.parquet", "visits.parquet"])
def test_an_altered_file_of_the_ledger(project, version, name):
    flip(project.ledger / name)
    [problem] = project.verify(version).problems
    assert problem == (
        f"{project.ledger / name} was altered: its hash isn't the one in the manifest. Restore it with `dvc checkout`"
    )


def test_a_missing_base(project, version):
    (project.ledger / "base.safetensors").unlink()
    found = project.verify(version)
    [problem] = found.problems
    assert problem.startswith(f"{project.ledger}/base.safetensors is missing or can't be read")
    assert not found.identical


def test_an_altered_manifest(project, version):
    path = project.ledger / "manifest.json"
    stored = json.loads(path.read_text())
    stored["manifest"]["entries"]["settled"]["root"] = "0" * 64
    path.write_text(json.dumps(stored))
    assert project.verify(version).problems == (
        f"{path} was altered: its own digest differs. Restore it with `dvc checkout`",
    )
    path.write_text("{}")
    assert "manifest.json can't be read: KeyError('manifest')" in project.verify(version).problems[0]
    path.unlink()
    assert "manifest.json is missing or can't be read" in project.verify(version).problems[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": 1}, "manifest.json has format 1, this version reads 3: train again"),
        ({"settled": {"codec": {"codec": "new", "blocks": []}}}, "rows of codec 'new' can't be verified"),
        ({"settled": {"row_bytes": 3}}, f"the manifest says {N} of 3. Restore it with `dvc checkout`"),
    ],
    ids=["format", "codec", "length of rows"],
)
def test_a_ledger_that_says_something_else_of_itself(project, version, changes, problem):
    sign(project, **changes)
    found = project.verify(version)
    assert not found.identical
    assert any(problem in said for said in found.problems)


def test_a_base_that_was_forged_together_with_the_manifest(project, version):
    """Hashes only show what was altered by accident; the identity shows this, too."""
    path = project.ledger / "base.safetensors"
    base = load_file(path)
    base["5.bias"][2] += 2.0**-20
    save_file(base, path)
    sign(project, attachments={path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
    found = project.verify(version)
    assert dict(found.differing) == {"5.bias": 1}
    assert found.largest_difference == pytest.approx(2.0**-20, rel=0.1)
    assert len(found.problems) == 1


def test_one_weight_altered_by_one_unit_in_the_last_place(project, version):
    weights = load_file(version.weights)
    weights["5.weight"][3, 4] = np.nextafter(weights["5.weight"][3, 4], np.float32(np.inf))
    save_file(weights, version.weights)
    found = project.verify(version)
    altered, differs = found.problems
    assert altered.startswith(f"{version.weights} was altered after it was published: its hash is another.")
    assert differs.startswith("1 weights differ from what the ledger gives, by up to ")
    assert differs.endswith(": 5.weight (1)")
    assert (found.identical, dict(found.differing)) == (False, {"5.weight": 1})
    assert 0 < found.largest_difference < 1e-7
    # also where whoever altered the weights mended the hash that goes with them
    [differs] = project.verify(replace(version, weights_sha256=hash_arrays(weights))).problems
    assert differs.endswith(": 5.weight (1)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(project, version, value):
    weights = load_file(version.weights)
    weights["7.bias"][0] = value
    save_file(weights, version.weights)
    found = project.verify(replace(version, weights_sha256=None))
    assert dict(found.differing) == {"7.bias": 1}
    assert np.isfinite(found.largest_difference), "it is printed as JSON"


def test_an_altered_buffer_that_no_row_covers(project, version):
    weights = load_file(version.weights)
    weights["1.num_batches_tracked"] += 1
    save_file(weights, version.weights)
    assert dict(project.verify(version).differing) == {"1.num_batches_tracked": 1}


def test_weights_of_another_shape_or_name(project, version):
    weights = load_file(version.weights)
    weights["more"] = weights.pop("7.bias")
    weights["5.bias"] = weights["5.bias"][:-1]
    save_file(weights, version.weights)
    assert project.verify(replace(version, weights_sha256=None)).problems == (
        "the published weights lack '7.bias'",
        "the published weights hold 'more', the original doesn't",
        "'5.bias' is float32 (11,), in the original float32 (12,)",
    )


@pytest.mark.parametrize("what", ["weights", "original"])
def test_missing_or_unreadable_weights(project, version, what):
    path = version.weights if what == "weights" else project.original
    path.write_bytes(b"nonsense")
    [problem] = project.verify(version).problems
    assert problem.startswith(f"{path} isn't a safetensors file that NumPy can read")
    path.unlink()
    [problem] = project.verify(version).problems
    assert problem.startswith(f"{path} is missing or can't be read")


def test_a_missing_or_altered_correction(project):
    version = project.publish(CLASS)
    flip(version.correction)
    assert "correction.safetensors was altered: its hash isn't the one" in project.verify(version).problems[0]
    version.correction.unlink()
    [problem] = project.verify(version).problems
    assert problem.startswith(f"{version.correction} is missing or can't be read")
    [problem] = project.verify(replace(version, correction=None, correction_sha256=None)).problems
    assert "weights differ from what the ledger gives" in problem


def test_a_model_that_is_not_the_ledgers(project, version):
    weights = load_file(project.original)
    weights["7.weight"] *= 2
    save_file(weights, project.original)
    [problem] = project.verify(version).problems
    assert problem.startswith(f"{project.original} isn't the model that {project.ledger} (run {version.run_id}) was")


def test_a_version_of_another_run(project, version):
    [problem] = project.verify(replace(version, run_id="0123")).problems
    assert problem.startswith(f"{version.weights} was unlearned from run 0123, {project.ledger} belongs to run ")
    assert "they are out of step. Run `amnesiac unlearn`, or restore both with `dvc checkout`" in problem


@pytest.mark.parametrize("ids", [("s5", "s1", "s40", "someone"), ("s5", "s1", "s40")])
def test_deleted_samples_that_are_not_the_ledgers(project, version, ids):
    found = project.verify(replace(version, sample_ids=ids))
    [problem] = found.problems
    assert "prepared data and ledger are out of step" in problem
    assert not found.identical
    [problem] = project.verify(replace(version, forgotten=(N,), sample_ids=())).problems
    assert "prepared data and ledger are out of step" in problem


def test_a_deletion_that_was_not_carried_out(project, version):
    """The journal says that one more sample is deleted than the weights do."""
    found = project.verify(replace(version, forgotten=(*SAMPLES, 9), sample_ids=()))
    [problem] = found.problems
    assert "weights differ from what the ledger gives" in problem
    assert set(found.differing) == {n for n in load_file(version.weights) if "1." not in n}


def test_samples_that_were_never_captured(train_form):
    project = train_form(SettledSettings(), classes=(0, 1))
    found = project.verify()
    assert (found.identical, found.problems, found.read) == (True, (), 2 * N // 3)
    version = project.publish((0, 4))
    assert project.verify(version).problems == ()
    [problem] = project.verify(replace(version, forgotten=(0, 4, 5), sample_ids=())).problems
    assert problem.startswith("1 deleted samples were never captured, the first at position 5")
