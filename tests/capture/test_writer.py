"""What the writing thread writes: an obvious twin's rows, in bounded memory, no error lost."""

import errno
import threading

import numpy as np
import pytest
import torch
from torch import nn

from amnesiac.capture import writer
from amnesiac.capture.blocks import pack
from amnesiac.capture.hooks import GradientTap
from amnesiac.capture.packing import PART_NUMBERS
from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool, read_spool
from amnesiac.errors import InputError, UnsupportedModel


class Twice(nn.Module):
    """A layer that is called more than once in a forward pass."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 6)

    def forward(self, x):
        return self.one(torch.relu(self.one(x)))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3, stride=2),
        nn.BatchNorm2d(3), nn.PReLU(), nn.Flatten(), nn.Linear(3 * 2 * 2, 5),
    )  # fmt: skip


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5)), (6,)),
    "convolutions": (convolutions, (1, 6, 6)),
    "called twice": (Twice, (6,)),
    "sequence": (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 5)), (3, 6)),
}
SIZES = [8, 8, 5, 8, 1]


def model_of(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name][0]()


def batches(name):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, *MODELS[name][1], generator=generator) for n in SIZES]


def train(model, data, folder, **settings):
    """Record a run over mini-batches; loss: a sum over samples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    recorder = Recorder(model, optimizer, Spool(folder), **settings)
    try:
        for k, x in enumerate(data):
            optimizer.zero_grad()
            with recorder.batch(np.arange(len(x)) + 10 * k):
                (model(x).square().sum() / 8).backward()
            optimizer.step()
    finally:
        recorder.close()


def twin(model, data, layout, rank=None):
    """The rows, mini-batch by mini-batch, computed before the step that follows."""
    optimizer, tap, rows = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), GradientTap(model), []
    for x in data:
        optimizer.zero_grad()
        tap.start()
        (model(x).square().sum() / 8).backward()
        gradients = tap.take()
        rows.append(torch.cat([pack(block, gradients[block.layer]) for block in layout.blocks], 1))
        optimizer.step()
    return torch.cat(rows)


@pytest.mark.parametrize("group", [1, 2, 16])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_twin_however_they_are_grouped(name, rank, group, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_STEPS", group)
    train(model_of(name), batches(name), tmp_path / "spool", rank=rank)
    with read_spool(tmp_path / "spool") as spool:
        rows = spool.layout.decode(np.array(spool.visits))
        expected = twin(model_of(name), batches(name), spool.layout, rank)
        assert torch.allclose(rows, expected, rtol=1e-5, atol=1e-6)
        assert spool.index[:, 1].tolist() == np.repeat(np.arange(len(SIZES)), SIZES).tolist()
        assert spool.index[:, 2].tolist() == list(range(sum(SIZES)))
        assert len(spool.steps) == len(SIZES)


def test_parts_of_a_large_mini_batch_are_the_whole(tmp_path):
    """More numbers than are worked on at once: the last part is smaller than the others."""
    model, data = (
        nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, 3)),
        [torch.randn(60, 1, 28, 28)],
    )
    assert PART_NUMBERS < 60 * 24 * 24 * 27
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, data, tmp_path / "spool")
    model.load_state_dict(before)
    with read_spool(tmp_path / "spool") as spool:
        assert torch.allclose(
            spool.layout.decode(np.array(spool.visits)), twin(model, data, spool.layout), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("group", [1, 16])
def test_only_captured_samples_have_rows(group, tmp_path, monkeypatch):
    """Of some mini-batches none is captured."""
    monkeypatch.setattr(writer, "GROUP_STEPS", group)
    data = batches("convolutions")
    captured = np.zeros(60, bool)
    captured[[1, 4, 20, 33]] = True
    train(model_of("convolutions"), data, tmp_path / "spool", captured=captured)
    with read_spool(tmp_path / "spool") as spool:
        slots, expected = spool.index[:, 2], twin(model_of("convolutions"), data, spool.layout)
        assert spool.index[slots >= 0, 0].tolist() == [1, 4, 20, 33]
        assert torch.allclose(
            spool.layout.decode(np.array(spool.visits)), expected[torch.from_numpy(slots >= 0)], atol=1e-6
        )


def test_an_input_tensor_that_is_filled_anew_each_step(tmp_path):
    """As loops do that keep one pinned tensor: what was seen must not change afterwards."""
    data, kept = batches("linear")[:2], torch.empty(8, 6)
    model = model_of("linear")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    for x in data:
        kept.numpy()[:] = x.numpy()  # past torch's version counter, too
        optimizer.zero_grad()
        with recorder.batch(range(8)):
            (model(kept).square().sum() / 8).backward()
        optimizer.step()
    recorder.close()
    with read_spool(tmp_path / "spool") as spool:
        expected = twin(model_of("linear"), data, spool.layout)
        assert torch.allclose(spool.layout.decode(np.array(spool.visits)), expected, atol=1e-6)


def test_a_hidden_tensor_changed_in_place_is_noticed(tmp_path):
    model, hidden = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5)), []
    model[1].register_forward_hook(lambda layer, inputs, output: hidden.append(output))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    with recorder.batch(range(8)):
        model(torch.randn(8, 6)).square().sum().backward()
    with torch.no_grad():
        hidden[0].zero_()
    optimizer.step()
    with pytest.raises(UnsupportedModel, match=r"layer '2' \(Linear\): its input was changed in place"):
        recorder.close()


def test_a_full_disk_stops_training_with_the_systems_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "visits.bin")

    monkeypatch.setattr(Spool, "append_visits", full)
    monkeypatch.setattr(writer, "GROUP_STEPS", 1)
    with pytest.raises(OSError, match="No space left"):
        train(model_of("linear"), batches("linear") * 20, tmp_path / "spool")
    assert not [thread for thread in threading.enumerate() if thread.name == "spool writer"]


def test_training_waits_for_a_slow_disk(tmp_path, monkeypatch):
    """No more groups are held than said, however long the disk takes; then all is written."""
    gate, written, append = threading.Event(), [], Spool.append_visits

    def slow(spool, samples, *rest):
        gate.wait()
        written.append(len(samples))
        append(spool, samples, *rest)

    monkeypatch.setattr(Spool, "append_visits", slow)
    monkeypatch.setattr(writer, "GROUP_STEPS", 1)
    made, run = [], batches("linear") * 4

    def fed():
        for x in run:
            made.append(len(x))
            yield x

    training = threading.Thread(target=train, args=(model_of("linear"), fed(), tmp_path / "spool"))
    training.start()
    while len(made) < writer.WAITING + 2:
        pass
    training.join(0.3)  # it has nothing to wait for but the gate
    assert training.is_alive()
    assert len(made) <= writer.WAITING + 3 < len(run)
    assert not written
    gate.set()
    training.join()
    assert written == [len(x) for x in run]


def test_a_second_action_waits_for_the_first(tmp_path):
    """What a kill costs is bounded: no later checkpoint is begun while the former isn't on disk."""
    first, told, said = threading.Event(), [], threading.Event()
    spool = Spool(tmp_path)
    at_work = writer.SpoolWriter(spool, {})

    def slow():
        first.wait()
        told.append("first")

    def two():
        at_work.then(slow)
        said.set()
        at_work.then(lambda: told.append("second"))
        told.append("training goes on")

    training = threading.Thread(target=two)
    training.start()
    said.wait()
    training.join(0.1)
    assert training.is_alive()
    assert told == []
    first.set()
    training.join()
    at_work.close()
    spool.close()
    assert told.index("first") < told.index("training goes on")


def test_actions_after_an_error_do_not_wait_for_ever(tmp_path):
    spool = Spool(tmp_path)
    at_work = writer.SpoolWriter(spool, {})

    def fail():
        raise OSError(errno.ENOSPC, "full")

    at_work.then(fail)
    with pytest.raises(OSError, match="full"):
        at_work.then(fail)
    at_work.then(fail)
    at_work.then(fail)
    at_work.close()
    spool.close()


def test_durable_sizes_are_told_once_all_is_written(tmp_path):
    model, told = model_of("linear"), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"))
    for x in batches("linear")[:3]:
        with recorder.batch(range(len(x))):
            model(x).square().sum().backward()
        optimizer.step()
        recorder.when_written(told.append)
    sizes = recorder.sync()
    assert [found["steps.bin"] // 24 for found in told] == [1, 2, 3]
    assert told[-1] == sizes == {name: (tmp_path / "spool" / name).stat().st_size for name in Spool.FILES}
    recorder.close()


def test_mixed_precision(tmp_path):
    """Under autocast layers see bfloat16; rows are float32 and near those of full precision."""
    x = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    rows = {}
    for on in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 8), nn.ReLU(), nn.Linear(8, 3)
            )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        recorder = Recorder(model, optimizer, Spool(tmp_path / f"spool-{on}"))
        with recorder.batch(range(16)), torch.autocast("cpu", torch.bfloat16, enabled=on):
            (model(x).float().square().sum() / 16).backward()
        optimizer.step()
        recorder.close()
        with read_spool(tmp_path / f"spool-{on}") as spool:
            rows[on] = spool.layout.decode(np.array(spool.visits))
    error = (rows[True] - rows[False]).norm() / rows[False].norm()
    assert 0 < error < 0.02
    assert rows[True].dtype == torch.float32


def test_a_changed_gradient_is_refused_where_no_norm_was_kept(tmp_path):
    model = model_of("linear")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"), clipping=False)
    with recorder.batch(range(8)):
        model(batches("linear")[0]).square().sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(InputError, match="clipping=True"):
        optimizer.step()
    recorder.close()
