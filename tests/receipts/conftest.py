"""A signing key and the facts of a receipt."""

from dataclasses import replace

import pytest

from amnesiac.receipts import Algorithm, Chain, Model, Purged, Receipt, Request, Scan, ensure_signing_key


def facts(name="r-1", **changes):
    receipt = Receipt(
        request=Request(name, "2026-11-01T08:00:00Z", "2026-12-01T08:00:00Z", ("a1" * 32, "b2" * 32), ("c3" * 32,)),
        batch="batch-7",
        algorithm=Algorithm("settled", "0.1.0"),
        model=Model("0" * 63 + "1", "0" * 63 + "2"),
        rows_removed=40,
        rows_left=3960,
        subjects=2,
        keys_destroyed=2,
        key_epoch=5,
        purged=(Purged("dvc cache", "objects", 14, 123_456), Purged("dvc remote s3", "objects", 14, None)),
        scan=Scan(("/p/pipeline_data", "/tmp"), 512, 9_876_543, 42, 0),
        verdict="close to retraining",
        states={"RECEIVED": "2026-11-01T08:00:00Z", "PUBLISHED": "2026-11-02T03:00:10Z"},
        metrics={"forget accuracy": 0.041, "MIA AUC": 0.5, "KL forget": None},
    )
    return replace(receipt, **changes)


@pytest.fixture
def make():
    return facts


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path / "receipts")


@pytest.fixture
def key(tmp_path, chain):
    return ensure_signing_key(tmp_path / "signing", chain.public)


@pytest.fixture
def three(chain, key):
    """A chain of three receipts."""
    for k in (1, 2, 3):
        chain.append(facts(f"r-{k}"), key)
    return chain
