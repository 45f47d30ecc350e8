"""A mini-batch that is computed in parts: the rows, weights and steps of one that is computed whole."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.capture import writer
from amnesiac.capture.spool import read_spool
from amnesiac.errors import SettingsError, UnsupportedModel
from amnesiac.ledger.sealed import open_ledger
from amnesiac.ledger.visits import visit_table
from amnesiac.recording import record as recorded
from amnesiac.settings import CaptureSettings, OptimizerSettings, TrainingSettings, load_params
from amnesiac.training import CapturePlan, repair, retrain_without, train_with_capture
from amnesiac.training.batches import WHOLE, Slice, epoch_batches
from amnesiac.training.run import RepairSettings
from amnesiac.unlearning.unlearn import ledgers_for

METHODS = ("per-sample-delta", "per-sample-subset", "amnesiac-batch", "layerwise-partial")
OPTIMIZERS = {
    "momentum": OptimizerSettings(lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": OptimizerSettings(name="adam", lr=0.01),
}


def plan_for(folder, data):
    capture, ids = CaptureSettings(methods=METHODS), [f"s{i}" for i in range(len(data.labels))]
    return CapturePlan(capture, ledgers_for(capture), ids, ids, folder / "ledger", folder / "scratch")


def visits(folder):
    """Every sample's rows, one after another, with the step of each."""
    with read_spool(folder / "scratch" / "spool") as spool:
        table = visit_table(spool.index)
        rows = spool.layout.decode(spool.visits[table.slots.flatten()])
        return table.steps, rows.double(), [step.clip for step in spool.steps]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parts_give_the_same_rows_weights_and_steps(name, spec_of, build, data_of, tmp_path):
    data, made = data_of(dtype=torch.float32), lambda: build(torch.float32)
    found = {}
    for parts in (None, 3):
        spec = spec_of(optimizer=OPTIMIZERS[name], clip_norm=0.3, micro_batch=parts, batch_size=8)
        found[parts] = train_with_capture(spec, made, data, plan_for(tmp_path / str(parts), data))
    (whole, of_whole), (parted, manifest) = found[None], found[3]
    for key in whole.weights:
        torch.testing.assert_close(parted.weights[key], whole.weights[key], rtol=1e-4, atol=1e-5)
    (steps, rows, clips), (own_steps, own_rows, own_clips) = visits(tmp_path / "None"), visits(tmp_path / "3")
    assert np.array_equal(steps, own_steps)
    torch.testing.assert_close(own_rows, rows, rtol=1e-3, atol=1e-5)
    assert len(clips) == len(own_clips) == 2 * 2  # a step a mini-batch, not one a part
    assert own_clips == pytest.approx(clips, rel=1e-4)
    assert min(clips) < 1.0  # of the whole mini-batch's gradient, so it is the same
    assert manifest.visits == of_whole.visits
    assert manifest.run_id != of_whole.run_id
    if name == "momentum":  # what is left is the weight decay, which is nobody's
        assert manifest.residual["delta"] == pytest.approx(of_whole.residual["delta"], rel=1e-3)
    assert open_ledger(tmp_path / "3" / "ledger").check_rows("delta") is None


def test_rows_are_computed_in_parts_of_the_size_asked_for(spec_of, build, data):
    seen = []

    def watched():
        model = build()
        model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
        return model

    retrain_without(spec_of(micro_batch=3, batch_size=7, epochs=1), watched, data, [])
    assert seen == [3, 3, 1, 3, 1]


def test_retraining_in_parts_is_retraining(spec_of, build, data):
    spec, forget = spec_of(batch_size=5), [0, 4, 7]
    whole = retrain_without(spec, build, data, forget)
    parted = retrain_without(spec_of(batch_size=5, micro_batch=2), build, data, forget)
    assert max(float((whole.weights[k] - parted.weights[k]).abs().max()) for k in whole.weights) < 1e-12
    assert parted.history[-1].loss == pytest.approx(whole.history[-1].loss, rel=1e-12)
    assert parted.history[-1].accuracy == whole.history[-1].accuracy


def test_repair_in_parts_is_repair(spec_of, build, data):
    weights, settings = dict(build().state_dict()), RepairSettings(epochs=1.5)
    whole, parted = (
        repair(spec_of(batch_size=5, micro_batch=k), build, weights, data, [1], settings).weights for k in (None, 2)
    )
    assert max(float((whole[k] - parted[k]).abs().max()) for k in whole) < 1e-12


def test_leaving_samples_out_moves_nobody_to_another_part():
    nobody, some = np.zeros(23, bool), np.isin(np.arange(23), [3, 4, 11, 20])
    for own in (WHOLE, Slice(0, 1, 3), Slice(1, 2, 2)):
        for full, less in zip(
            epoch_batches(23, 9, 0, 1, nobody, own), epoch_batches(23, 9, 0, 1, some, own), strict=True
        ):
            left = [[row for row in part if not some[row]] for part in full.parts]
            assert [part.tolist() for part in less.parts] == [part for part in left if part]


def test_the_shares_of_all_processes_are_the_mini_batch():
    nobody = np.zeros(23, bool)
    whole = [batch.rows.tolist() for batch in epoch_batches(23, 9, 0, 1, nobody)]
    shares = [list(epoch_batches(23, 9, 0, 1, nobody, Slice(rank, 3, 2))) for rank in range(3)]
    joined = [np.concatenate([np.concatenate(b.parts) for b in own]).tolist() for own in zip(*shares, strict=True)]
    assert joined == whole
    assert all(len(part) <= 2 for own in shares for batch in own for part in batch.parts)


def test_parts_are_handed_to_the_writer_before_the_mini_batch_is_over(spec_of, build, data, tmp_path, monkeypatch):
    """What accumulation is for: a mini-batch needn't fit into memory."""
    monkeypatch.setattr(writer, "GROUP_BYTES", 1)
    order, put = [], writer.SpoolWriter._put
    monkeypatch.setattr(writer.SpoolWriter, "_put", lambda self, job: (order.append("group"), put(self, job))[1])
    told = lambda stage, done, total: order.append("step") if stage == "train" else None  # noqa: E731
    spec = spec_of(micro_batch=2, batch_size=11, epochs=1)
    train_with_capture(spec, lambda: build(torch.float32), Floats(data), plan_for(tmp_path, data), progress=told)
    assert order.index("step") >= 6


class Floats:
    def __init__(self, data):
        self.inputs, self.labels = data.inputs.float(), data.labels


def test_capture_around_a_loop_that_accumulates(tmp_path):
    """Blocks of `recorder.batch` before one step are parts of one mini-batch."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2), torch.randn(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    with recorded(model, optimizer, tmp_path / "ledger", sample_ids=list("abcdef"), expected_visits=2) as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            for rows in ([0, 1], [2, 3], [4, 5]):
                with recorder.batch(rows):
                    (model(x[rows]).square().sum() / 6).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    manifest = open_ledger(tmp_path / "ledger").manifest
    assert manifest.visits["steps"] == 2
    assert manifest.residual["delta"] < 1e-5


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True)])
def test_layers_that_mix_samples_are_refused(layer, spec_of, data, tmp_path):
    made = lambda: nn.Sequential(nn.Conv2d(2, 3, 3), layer, nn.Flatten(), nn.Linear(12, 3))  # noqa: E731
    with pytest.raises(UnsupportedModel, match=r"layer '1' .*Norm2d.* training\.micro_batch 2 .*Use GroupNorm"):
        train_with_capture(spec_of(micro_batch=2), made, data, plan_for(tmp_path, data))
    with pytest.raises(UnsupportedModel, match=r"training\.processes 2 .*Use GroupNorm"):
        retrain_without(spec_of(processes=2), made, data, [])
    retrain_without(spec_of(), made, Floats(data), [])  # whole mini-batches: as before


def test_settings_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("training: {batch_size: 2, processes: 3}")
    with pytest.raises(SettingsError, match=r"processes 3 is above batch_size 2.*take fewer processes"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("training: {device: 'cuda:1', processes: 2}")
    with pytest.raises(SettingsError, match=r"device 'cuda:1' names one device for 2 processes"):
        load_params(tmp_path / "params.yaml")


def test_runs_from_before_keep_their_id(spec_of):
    """What is added to the settings counts only where it is set."""
    settings = [{}, {"micro_batch": 2}, {"processes": 2}, {"micro_batch": 2, "processes": 2}]
    assert {"micro_batch", "processes"}.isdisjoint(TrainingSettings().facts())
    ids = [spec_of(**own).run_id() for own in settings]
    assert all(a != b for a, b in itertools.combinations(ids, 2))
