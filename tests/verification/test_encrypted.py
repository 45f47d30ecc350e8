"""The verifier on encrypted ledgers: what survives is checked, what is erased needn't be, what is lost is named."""

from dataclasses import replace

import numpy as np
import pytest

from amnesiac.errors import SettingsError
from amnesiac.keys import LocalKeyStore, sample_name
from amnesiac.settings import SettledSettings
from amnesiac.verification import Version, verify
from tests.verification.conftest import CLASS, SAMPLES, N, Project, train


@pytest.fixture(scope="session")
def locked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encrypted")
    return train(folder, SettledSettings(), keys=LocalKeyStore(folder / "keys", create=True))


@pytest.fixture
def project(locked, tmp_path) -> Project:
    return locked.copy(tmp_path / "project")


def checked(project, version):
    return verify(project.ledger, project.original, version, project.keys)


def erase(project, *positions):
    numbers = project.keys.find([sample_name(f"s{k}") for k in positions])
    assert (numbers >= 0).all()
    project.keys.destroy(numbers)


@pytest.mark.parametrize("forget", [SAMPLES, CLASS])
def test_a_deletion_is_verified_before_and_after_its_erasure(forget, project):
    version = project.publish(forget)
    before = checked(project, version)
    assert (before.problems, before.identical, before.read) == ((), True, N - len(forget))
    erase(project, *forget)
    placeholders = tuple(f"erased-{k}" for k in forget)
    assert checked(project, replace(version, sample_ids=placeholders)) == before
    assert checked(project, replace(version, sample_ids=())) == before


def test_an_erased_sample_that_was_never_deleted_is_a_problem(project):
    version = project.publish(SAMPLES)
    erase(project, *SAMPLES, 9, 22)
    found = checked(project, replace(version, sample_ids=()))
    assert found.problems == (
        "2 training samples were erased but aren't among the deleted ones, the first at position 9: their rows can't "
        "be read, and the weights still hold their part. Check out the version that their deletion published",
    )
    assert (found.identical, found.read, found.largest_difference) == (False, 0, None)


def test_a_surviving_row_that_was_altered_is_a_problem(project):
    version = project.publish(SAMPLES)
    row = bytearray(project.read_row(9))
    row[3] ^= 1
    project.write_row(9, bytes(row))
    project.write_row(SAMPLES[0], bytes(row))  # deleted: its row doesn't count
    [problem] = checked(project, version).problems
    assert "row 9 of 'settled', of the training sample at position 9, is damaged" in problem


def test_a_row_under_anothers_key_is_a_problem(project):
    own, other = project.read_row(9), project.read_row(10)
    project.write_row(9, other)
    project.write_row(10, own)
    problems = checked(project, project.publish(SAMPLES)).problems
    assert [f"position {k}, is damaged" in problem for k, problem in zip((9, 10), problems, strict=True)] == [True] * 2


def test_without_the_right_keys_the_reason_is_named(project, tmp_path):
    version = project.publish(SAMPLES)
    for keys, reason in (
        (None, "no key store was given"),
        (LocalKeyStore(tmp_path / "nowhere"), "no key store at"),
        (LocalKeyStore(tmp_path / "other", create=True), "but store"),
    ):
        [problem] = verify(project.ledger, project.original, version, keys).problems
        assert reason in problem


def test_wrong_weights_are_found_as_ever(project):
    version = project.publish(SAMPLES)
    found = checked(project, replace(version, forgotten=SAMPLES[:-1], sample_ids=()))
    assert not found.identical
    assert found.differing
    assert np.isfinite(found.largest_difference)


def test_a_ledger_without_settled_rows_is_refused_as_ever(tmp_path):
    folder = tmp_path / "run"
    made = train(
        folder, SettledSettings(), methods=("per-sample-delta",), keys=LocalKeyStore(folder / "keys", create=True)
    )
    with pytest.raises(SettingsError, match="holds no 'settled' rows"):
        checked(made, Version(made.original))
