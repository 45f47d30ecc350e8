"""The store benchmark measures what it says, in both forms that it prints."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.store import MEASURED, ROW_BYTES, VARIANTS, benchmark, targets
from flows.bench import bench

FIELDS = {"what", "model", "variant", "seconds", "spread", "cpu_seconds", "ratio", "over_checksum", "bytes_per_sample"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    rounds = []
    place = tmp_path_factory.mktemp("bench")
    result = benchmark(1, 2, place, lambda *seen: rounds.append(seen))
    assert list(place.iterdir()) == [], "nothing is left behind"
    assert [seen[1:] for seen in rounds] == [(k, 6) for k in range(1, 7)]
    return result


def test_a_row_for_each_measurement_length_and_variant(found):
    places = {(row["what"], row["model"], row["variant"]) for row in found["rows"]}
    assert places == {(w, f"rows of {b} bytes", v) for w in MEASURED for b in ROW_BYTES for v in VARIANTS}
    for row in found["rows"]:
        assert row.keys() >= FIELDS
        assert row["spread"][0] <= row["seconds"] <= row["spread"][1]
        assert row["seconds"] > 0
        assert (row["over_checksum"] is None) == (row["variant"] == "plain")
        assert row["over_checksum"] == 1 or row["variant"] != "checksum"
        assert row["ratio"] == 1 or row["variant"] != "plain"
    assert {row["bytes_per_sample"] - 3072 for row in found["rows"] if "3072" in row["model"]} == {0, 16, 28}


def test_targets_are_the_issues(found):
    cost, quick = found["targets"][:9], found["targets"][9:]
    assert {(t["what"], t["target"]) for t in cost} == {
        (f"{what}, over checksums", limit) for what, limit in (("write", 1.25), ("read", 1.15), ("random read", 1.15))
    }
    assert {(t["what"].split(",")[0], t["target"]) for t in quick} == {("write", 0.4), ("random read", 0.4)}
    slow = [row | {"over_checksum": 1.2, "ratio": 2.6} for row in found["rows"] if row["variant"] == "encrypted"]
    assert [t["met"] for t in targets(slow)] == [t["what"] == "write, over checksums" for t in targets(slow)]
    assert all(t["met"] for t in targets([row | {"over_checksum": 1.0, "ratio": 2.4} for row in slow]))


def test_as_json_and_as_a_table(tmp_path):
    options = ["store", "--megabytes", "1", "--rounds", "1", "--folder", str(tmp_path)]
    printed = CliRunner().invoke(bench, [*options, "--json"])
    assert printed.exit_code == 0, printed.output
    assert len(json.loads(printed.stdout)["rows"]) == 27
    table = CliRunner().invoke(bench, options)
    assert table.exit_code == 0, table.output
    assert "rows of 40000 bytes" in table.stdout
    assert "of 15 targets met" in table.stdout
