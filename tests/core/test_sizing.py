"""Sizes are those of real ledgers and spools; times follow from what was measured, money from prices."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from amnesiac.capture.spool import read_spool
from amnesiac.errors import InputError
from amnesiac.settings import CaptureSettings, CurvatureSettings, SettledSettings
from amnesiac.sizing import Constants, Layer, Prices, Sizing, estimate, last_layers, parse_layer, square_layers
from benchmarks.constants import measured
from flows.cli import app

MLP = (Layer(128, 784), Layer(10, 128))
ASKED = Sizing(samples=4000, parameters=101_770, captured=MLP, epochs=12)


@pytest.mark.parametrize(
    ("form", "own"),
    [
        ({}, {}),
        ({"class_rank": 2, "bits": 16}, {"class_rank": 2, "bits": 16}),
        ({"rank": 1, "class_rows": False}, {"rank": 1, "class_rank": 0}),
    ],
)
def test_rows_and_spool_are_as_long_as_real_ones(small_run, small_data, tmp_path, form, own):
    from torch import nn

    capture = CaptureSettings(
        methods=("settled",),
        settled=SettledSettings(**form),
        curvature=CurvatureSettings(smallest_sample=16, segments=2),
    )
    run = small_run(
        tmp_path, lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 3)), small_data(40),
        capture, epochs=2,
    )  # fmt: skip
    asked = Sizing(40, 803, (Layer(20, 36), Layer(3, 20)), epochs=2, **own)
    found = estimate(asked)["bytes"]
    assert found["row_of_a_sample"] == sum(entry.row_bytes for entry in run.manifest.entries.values())
    with read_spool(run.scratch / "spool") as spool:
        assert found["spool_of_a_visit"] == 4 * sum(block.size for block in spool.layout.blocks)
    assert found["base"] == 8 * 803 and asked.captured_parameters == 803


def test_published_figures_come_out():
    """docs/methods.md: the default's 3,168 bytes a sample, ResNet-18's spool is close; docs/performance.md: 4.2 KB."""
    found = estimate(ASKED)["bytes"]
    assert (found["row_of_a_sample"], found["spool_of_a_visit"]) == (3168, 4208)
    masked = estimate(replace(ASKED, rows="masked"))["bytes"]["row_of_a_sample"]
    assert masked == pytest.approx(20_358, rel=1e-3)
    assert estimate(replace(ASKED, rows="dense", bits=32))["bytes"]["row_of_a_sample"] == 2 * 4 * 101_770


def test_exact_rows_of_convolutions_are_dense_and_a_rank_makes_them_small():
    conv = Layer(512, 4608, 4, positions=49)
    asked = Sizing(1000, conv.parameters, (conv,))
    assert estimate(asked)["bytes"]["spool_of_a_visit"] == 4 * conv.parameters
    small = estimate(replace(asked, spool_rank=1, spool_bytes=2))["bytes"]["spool_of_a_visit"]
    assert small == 2 * 4 * (512 + 4609)


def test_the_last_layers_are_those_of_capture_layers():
    layers = (Layer(10, 5, 3), Layer(4, 10, 2))
    assert last_layers(layers, 1) == (Layer(4, 10, 1),) and last_layers(layers, 3) == (Layer(10, 5, 1), Layer(4, 10, 2))
    assert last_layers(layers, 5) == layers
    with pytest.raises(InputError, match="the last 6 of 5 layers: choose fewer"):
        last_layers(layers, 6)


def test_times_grow_with_what_is_done_and_hours_given_are_taken():
    found = estimate(
        replace(ASKED, constants=Constants(training=(1e-9, 2e-9), settling=(1e-9, 3e-9), capture=(1.5, 2.0)))
    )
    work = 4000 * 12 * 101_770
    seconds = found["core_seconds"]
    assert seconds["training"] == pytest.approx((work * 1e-9, work * 2e-9))
    assert seconds["capture"] == pytest.approx((work * 0.5e-9, work * 2e-9))
    assert seconds["settling"] == pytest.approx((work * 1e-9, work * 3e-9))
    half = estimate(replace(ASKED, captured=MLP[1:], training_hours=2.0))
    assert half["core_seconds"]["training"] == (7200.0, 7200.0)
    assert half["core_seconds"]["settling"][0] == pytest.approx(
        1290 / 101_770 * estimate(ASKED)["core_seconds"]["settling"][0]
    )
    month = estimate(replace(ASKED, batches=3, references=2, training_hours=1.0))["month"]
    assert month["retraining_core_seconds"] == (6 * 3600.0,) * 2


def test_money_is_price_times_amount():
    free = estimate(ASKED)["money"]
    assert set(free.values()) == {0.0}
    asked = replace(ASKED, samples=10**6, training_hours=10.0, prices=Prices(0.02, 5e-6, 4e-7, 0.05))
    found = estimate(asked)
    kept = found["bytes"]["rows_and_copies"] + found["month"]["bytes_of_versions"]
    assert found["money"]["storage_a_month"] == pytest.approx(0.02 * kept / 1e9)
    assert found["money"]["comparison_a_month"] == pytest.approx(0.05 * 4 * 2 * 10)


@pytest.mark.parametrize("text", ["12", "axb", "3x0", "3x4x5x6x7", "3x4@x"])
def test_a_layer_that_is_none_is_named(text):
    with pytest.raises(InputError, match=f"layer '{text}'"):
        parse_layer(text)
    assert parse_layer("64x147x2@1024") == Layer(64, 147, 2, 1024)
    assert square_layers(100_000_000, 50)[0].parameters == pytest.approx(1e8, rel=1e-3)


def test_the_defaults_are_what_the_result_files_say(tmp_path):
    found, default = measured(), Constants()
    for name in ("training", "capture", "curvature", "settling", "write", "read"):
        assert getattr(default, name) == pytest.approx(getattr(found, name), rel=0.05), name
    assert measured(tmp_path) == default


def test_the_command_prints_the_same_for_people_and_programs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # it needs no project
    done = CliRunner().invoke(app, ["size", "--layer", "128x784", "--layer", "10x128", "--samples", "4000", "--json"])
    found = json.loads(done.stdout)
    assert found["bytes"]["row_of_a_sample"] == 3168 and found["asked"]["parameters"] == 101_770
    table = CliRunner().invoke(app, ["size", "--prices", "0.023,5e-6,4e-7,0.05"]).stdout
    assert "424 GB" in table and "5.66 TB" in table and "money: storage a month" in table
    last = json.loads(CliRunner().invoke(app, ["size", "--last", "5", "--json"]).stdout)
    assert last["asked"]["captured_parameters"] == pytest.approx(1e7, rel=0.01)
    wrong = CliRunner().invoke(app, ["size", "--layer", "12"])
    assert wrong.exit_code == 2 and "OUTxINxCOUNT" in wrong.output
    assert CliRunner().invoke(app, ["size", "--prices", "1,2"]).exit_code == 2
