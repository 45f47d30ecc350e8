"""Published weights are what an independent sum over the surviving rows gives, whatever was deleted."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import amnesiac.verification
from amnesiac.errors import SettingsError
from amnesiac.models import load_weights
from amnesiac.settings import OptimizerSettings, SettledSettings
from amnesiac.verification import rows
from tests.verification.conftest import CLASS, SAMPLES, N

FORMS = {
    "low-rank 16 bits": SettledSettings(bits=16, rank=1),
    "dense 8 bits": SettledSettings(rows="dense"),
    "dense float32": SettledSettings(rows="dense", bits=32),
    "no class rows": SettledSettings(class_rows=False),
}


def test_before_any_deletion_the_trained_model_is_what_is_left(trained):
    found = trained.verify()
    assert (found.identical, found.largest_difference, found.differing, found.problems) == (True, 0.0, {}, ())
    assert (found.rows, found.read, found.surviving, found.forgotten) == (N, N, N, 0)


@pytest.mark.parametrize(
    "forget", [SAMPLES, CLASS, (*CLASS, *{0, 2, 3})], ids=["samples", "class", "class and samples"]
)
def test_after_a_deletion(project, forget):
    version = project.publish(forget)
    found = project.verify(version)
    assert (found.identical, found.problems) == (True, ())
    assert (found.read, found.surviving, found.forgotten) == (N - len(forget), N - len(forget), len(forget))
    assert (version.correction is not None) == (len(forget) >= len(CLASS))
    before, after = load_weights(project.original), load_weights(version.weights)
    assert not all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows(train_form, form):
    project = train_form(FORMS[form])
    for forget in (SAMPLES, CLASS):
        found = project.verify(project.publish(forget))
        assert (found.identical, found.problems) == (True, ())


def test_adam_and_masked_rows(train_form):
    """Masked rows are rounded after a matrix product: to within a multiple of 2^-40 a row, mostly identical."""
    form = SettledSettings(rows="masked", fraction=0.3)
    project = train_form(form, optimizer=OptimizerSettings(name="adam", lr=0.01))
    for forget in (SAMPLES, CLASS):
        found = project.verify(project.publish(forget))
        assert found.problems == ()
        assert found.largest_difference < 1e-7
    mask = project.ledger / "mask-settled.safetensors"
    mask.write_bytes(mask.read_bytes()[:-1])
    assert any(f"{mask} was altered" in problem for problem in project.verify().problems)


def test_reading_in_many_small_parts_changes_no_bit(project, monkeypatch):
    version = project.publish(CLASS)
    monkeypatch.setattr(rows, "READ_BYTES", 1)
    found = project.verify(version)
    assert (found.identical, found.read) == (True, N - len(CLASS))


def test_only_rows_of_surviving_samples_are_read(project):
    """What was deleted may be erased from the ledger, and the weights can still be verified."""
    version = project.publish(SAMPLES)
    for position in SAMPLES:
        project.write_row(position, bytes(project.row_bytes))
    assert project.verify(version).problems == ()
    assert len(project.verify().problems) == len(SAMPLES)


@pytest.mark.parametrize("form", [SettledSettings(rows="unsettled"), None], ids=["unsettled rows", "another method"])
def test_a_ledger_without_settled_rows_has_no_identity(train_form, form):
    methods = ("settled",) if form else ("per-sample-delta",)
    project = train_form(form or SettledSettings(), methods=methods)
    with pytest.raises(
        SettingsError, match=r"holds no 'settled' rows .*add settled to capture\.methods .* train again"
    ):
        project.verify()


def test_the_verifier_runs_without_torch_and_without_what_it_verifies():
    program = (
        "import sys, amnesiac.verification\n"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in {'torch', 'amnesiac'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    reading = ("amnesiac.verification", "amnesiac.keys", "amnesiac.storage")  # rows may lie in an object store
    rows = {"amnesiac.page_digests", "amnesiac.rowstore", "amnesiac.shards", "amnesiac.tables"}
    others = {"amnesiac", "amnesiac.errors"} | rows
    rest = {name for name in found if not name.startswith(reading)} - {"amnesiac.elsewhere"}
    assert rest - {"amnesiac.durable", "amnesiac.section"} == others


def test_no_module_of_the_verifier_imports_what_it_verifies_even_inside_a_function():
    files = sorted(Path(amnesiac.verification.__file__).parent.glob("*.py"))
    assert len(files) > 4
    allowed = {"amnesiac.errors", "amnesiac.keys", "amnesiac.rowstore"}  # keys decrypt, and know nothing of sums
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert "torch" not in {name.partition(".")[0] for name in names}, path
        ours = {name for name in names if name.partition(".")[0] == "amnesiac"}
        assert all(name in allowed or name.startswith("amnesiac.verification") for name in ours), path
