"""`amnesiac bench scaling` measures ledgers of the sizes it names. No limit on a time is tested."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from amnesiac.keys import LocalKeyStore
from amnesiac.ledger import open_ledger
from amnesiac.unlearning import unlearn
from benchmarks import scaling
from benchmarks.scaling_ledger import KEYS, LEDGER, RUN, blocks, weights_of, write_ledger
from benchmarks.scaling_plot import draw
from flows.bench_figures import bench


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("scaling")
    phases = write_ledger(place, 400, 3_000)
    assert set(phases.cpu) == set(phases.wall) == {"keys", "rows", "ids", "manifest"}
    return place


def test_a_synthetic_ledger_is_one_that_deletions_read(folder):
    ledger = open_ledger(folder / LEDGER, run_id=RUN, keys=LocalKeyStore(folder / KEYS))
    ledger.check_rows("settled")
    assert ledger.samples["sample_id"].tolist()[399] == "sample-0000399"
    weights = weights_of(blocks(3_000))
    assert sum(value.numel() for value in weights.values()) == pytest.approx(3_000, rel=0.1)
    done = unlearn(scaling.SETTLED, ledger, weights, [3, 399])
    one, other = (unlearn(scaling.SETTLED, ledger, weights, [k]) for k in (3, 399))
    for name, before in weights.items():
        assert not done.weights[name].equal(before)
        assert done.master[name].equal(one.master[name] + other.master[name] - before.double())


def test_deletions_and_erasures_are_measured_on_that_ledger(folder):
    rows = scaling.deleted(folder, 400, 3_000, 3)
    assert [(row["what"], row["deleted"], row["n"]) for row in rows] == [("delete", 1, 3), ("delete", 100, 3)]
    assert all(row["seconds"] > 0 and row["cpu_seconds"] > 0 and row["first_seconds"] > 0 for row in rows)
    size = sum(path.stat().st_size for path in (folder / LEDGER).rglob("*") if path.is_file())
    assert {(row["bytes"], row["bytes_per_sample"]) for row in rows} == {(size, size / 400)}
    [erased] = scaling.erased(folder, 400, 3_000, 3)
    assert (erased["n"], erased["files"]) == (3, 4)
    assert LocalKeyStore(folder / KEYS).alive(np.arange(400)).sum() == 400 - 3 * 100


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    plot = tmp_path_factory.mktemp("plot") / "scaling.svg"
    sizes = ["--samples", "300", "--samples", "600"]
    options = [*sizes, "--parameters", "3000", "--repeats", "3", "--plot", str(plot), "--folder", str(plot.parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "FIXED_N", 300)
        patch.setattr(scaling, "_alone", lambda work, *arguments: work(*arguments))  # processes cost 5 s each
        found = CliRunner().invoke(bench, ["scaling", "--json", *options])
    assert found.exit_code == 0, found.output
    assert "<svg" in plot.read_text()
    assert [path.name for path in plot.parent.iterdir()] == ["scaling.svg"], "ledgers are removed"
    return json.loads(found.stdout)


def test_a_row_for_what_is_measured_at_each_size(printed):
    over_n = [(r["what"], r["samples"], r["deleted"]) for r in printed["rows"] if r["variant"] == "over N"]
    each = [("write", 0), ("delete", 1), ("delete", 100), ("erase", 100)]
    assert over_n == [(what, n, f) for n in (300, 600) for what, f in each]
    assert {r["samples"] for r in printed["rows"] if r["variant"] == "over P"} == {300}
    by_series = {(r["what"], r["deleted"], r["samples"]): r for r in printed["rows"] if r["variant"] == "over N"}
    for (what, deleted, _), row in by_series.items():
        smallest = by_series[what, deleted, 300]
        assert row["ratio"] == row["cpu_seconds"] / smallest["cpu_seconds"]
    written = by_series["write", 0, 600]
    assert sum(written["parts"].values()) == pytest.approx(written["cpu_seconds"])
    assert 1.8 < written["bytes"] / by_series["write", 0, 300]["bytes"] < 2.2


def test_two_sizes_are_too_few_for_an_exponent(printed):
    assert printed["exponents"] == {} == dict.fromkeys(printed["targets"])


def test_exponents_are_slopes_and_deletions_are_to_be_flat():
    rows = [
        {"what": what, "variant": "over N", "samples": n, "parameters": 9, "deleted": 100, "cpu_seconds": 2 * n**power,
         "seconds": 1.0, "bytes": n, "files": 4, "peak_mb": None}
        for n in (1000, 10_000, 100_000)
        for what, power in (("delete", 0.25), ("erase", 1.0))
    ]  # fmt: skip
    found = scaling.exponents(rows)
    assert found["delete 100 over N"] == pytest.approx({"cpu_seconds": 0.25, "seconds": 0, "bytes": 1, "files": 0})
    assert found["erase over N"]["cpu_seconds"] == pytest.approx(1)
    assert {target["what"]: target["met"] for target in scaling.targets(found)} == {
        "exponent, delete 100 over N, cpu seconds": False,
        "exponent, delete 100 over N, seconds": True,
    }
    labels = [text.get_text() for text in draw(rows).axes[0].get_legend().get_texts()]
    assert labels == ["delete 100, exponent 0.25", "destroy 100 keys, exponent 1.00"]
