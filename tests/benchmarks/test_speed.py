"""`amnesiac bench capture` and `bench unlearn`: they measure what they say. No limit on a time is tested."""

import math

import pytest

from amnesiac.errors import DataError
from benchmarks import capturing, deleting
from benchmarks.forgetting import Options

P, STEPS, N = 101_770, 63, 4000


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def captured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capturing, "EPOCHS", {"mlp-momentum": 1})
        patch.setattr(capturing, "VARIANTS", {k: v for k, v in capturing.VARIANTS.items() if k != "opacus"})
        return capturing.capture_benchmark(Options(workers=1), 2, quiet)


def test_every_variant_is_set_beside_plain_training(captured):
    rows = {row["variant"]: row for row in captured["rows"]}
    assert list(rows) == ["plain", "capture", "updates", "vmap"]
    assert (rows["plain"]["ratio"], rows["plain"]["cpu_ratio"]) == (1.0, 1.0)
    assert all(row["low"] <= row["ratio"] <= row["high"] and row["n"] == 2 for row in rows.values())
    assert rows["vmap"]["cpu_ratio"] > 1.5, "per-sample gradients by vmap cost several times plain training"


def test_what_was_written_is_counted(captured):
    size = {row["variant"]: row["bytes_per_sample"] for row in captured["rows"]}
    factors = 785 + 128 + 129 + 10  # the outer products of both layers, a visit
    assert size["capture"] == pytest.approx(4 * factors + 3 * 8 + STEPS * 24 / N)
    assert size["updates"] == 4 * P * STEPS / N
    assert size["plain"] == size["vmap"] == 0


def test_targets_of_capture_are_judged_by_its_ratios():
    wall = {"plain": 1.0, "capture": 1.2, "vmap": 2.3, "opacus": 6.1}
    rows = [{"model": "mlp", "variant": name, "ratio": ratio} for name, ratio in wall.items()]
    found = {target["what"]: (round(target["measured"], 3), target["met"]) for target in capturing.targets(rows)}
    assert found == {
        "training with capture / plain": (1.2, True),
        "vmap / training with capture": (1.917, False),
        "opacus / training with capture": (5.083, True),
    }


def test_deletions_are_timed_against_samples_held_and_deleted():
    found = deleting.unlearn_benchmark(Options(workers=1), (375, 750, 1500), 2, quiet, "mnist-5k")
    plain, *every = found["rows"]
    rows = [row for row in every if row["deleted"]]
    assert (plain["variant"], plain["ratio"]) == ("plain", 1.0)
    asked = {(n, f) for n in (300, 600, 1200) for f in (1, 100, 1000) if f < n}
    assert {(row["samples"], row["deleted"]) for row in rows} == asked
    assert {row["variant"] for row in rows} == {"warm", "cold", "compute"}
    assert all(0 < row["seconds"] <= row["p99"] and row["n"] == 2 for row in rows)
    assert all(row["ratio"] == pytest.approx(row["seconds"] / plain["seconds"]) for row in rows)
    assert set(found["exponents"]) == {"F = 1 over N", "F = 100 over N", "N = 1,200 over F"}
    assert [target["target"] for target in found["targets"]] == [1 / 50, 1 / 500, 500, 500, 0.1, 0.1]
    trainings = [(row["samples"], row["variant"]) for row in every if not row["deleted"]]
    assert trainings == [(n, v) for n in (300, 600, 1200) for v in ("plain training", "capture and seal")]
    assert all(row["peak_mb"] > 0 for row in every)


def test_exponents_are_slopes_in_logarithms():
    rows = [
        {"variant": "warm", "samples": n, "deleted": 100, "seconds": 3e-3 * n**0.5, "peak_mb": None}
        for n in (1000, 10_000, 100_000)
    ]
    assert deleting.exponents(rows) == {"F = 100 over N": pytest.approx(0.5)}
    assert math.isclose(
        deleting.targets([r | {"ratio": 1.0} for r in rows], {"F = 100 over N": 0.5})[-1]["measured"], 0.5
    )


def test_without_mnist_the_error_says_what_to_do():
    with pytest.raises(DataError, match="AMNESIAC_DATA_ROOT"):
        deleting.unlearn_benchmark(Options(workers=1), (300,), 1, quiet)
