"""Planted faults: every one must be caught by the campaign's own checks, and the sound product by none."""

import pytest

from tests.campaign.faults import FAULTS
from tests.campaign.sizes import sizes

QUICK = ("tag not checked", "receipt appended twice")


def test_the_sound_product_passes_all_but_the_kills(pending, process, tmp_path, monkeypatch):
    monkeypatch.setenv("AMNESIAC_CAMPAIGN_SKIP_KILLS", "1")
    assert process("faults", "none", pending.root, tmp_path) == {}


@sizes(QUICK, tuple(FAULTS))
def test_planted_faults_are_caught(pending, process, tmp_path, record, size):
    caught = {}
    for number, name in enumerate(size):
        (tmp_path / str(number)).mkdir()
        caught[name] = process("faults", name, pending.root, tmp_path / str(number))
    missed = [name for name in size if not caught[name]]
    by = "; ".join(f"{name} ({', '.join(checks)})" for name, checks in caught.items())
    record(12, "faults", not missed, caught=f"{len(size) - len(missed)}/{len(size)}", by=by)
    assert not missed


@pytest.mark.campaign
def test_the_sound_product_passes_all(pending, process, tmp_path):
    assert process("faults", "none", pending.root, tmp_path) == {}
