"""Mixed precision: under autocast, and with GradScaler's loss scale, contributions make up what the weights did."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool, read_spool
from amnesiac.errors import InputError
from amnesiac.ledger.visits import dense_rows, optimizer_weights, visit_table

N, BATCH, STEEP = 48, 16, 64.0  # a steep loss, so that the largest loss scales overflow
MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 24), nn.ReLU(), nn.Linear(24, 3)),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(200, 3),
    ),
}  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.02 / STEEP, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
}
TOLERANCE = 0.01
"""Of what bfloat16, with 8 bits of mantissa, makes of a sum of contributions, relative to the way that was gone."""


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def skipping():
    """A loss scale that overflows in the first step, and again after every third that is taken."""
    return torch.amp.GradScaler(
        "cpu", init_scale=2.0**127, backoff_factor=2.0**-115, growth_factor=2.0**115, growth_interval=3
    )


def trained(folder, kind, optimizer, *, autocast, scaler=None, clip=None, parts=1, epochs=3, dtype="float32"):
    """A loop as a user writes it; returns (way of the weights, steps taken, steps left out)."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    x, y = torch.randn(N, 1, 12, 12), torch.randint(0, 3, (N,))
    recorder = Recorder(model, optimizer, Spool(folder), dtype=dtype)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    start, taken, left_out = flat(model), 0, 0
    for _ in range(epochs):
        for rows in torch.randperm(N).split(BATCH):
            optimizer.zero_grad()
            for part in rows.chunk(parts):
                with recorder.batch(part):
                    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                        loss = F.cross_entropy(model(x[part]), y[part], reduction="sum") / BATCH * STEEP
                    scaler.scale(loss).backward()
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            before = flat(model)
            scaler.step(optimizer)
            scaler.update()
            moved = not torch.equal(before, flat(model))
            taken, left_out = taken + moved, left_out + (not moved)
    recorder.close()
    return flat(model) - start, taken, left_out


def summed(folder):
    """The sum of all contributions and the number of visits in the spool."""
    with read_spool(folder) as spool:
        table = visit_table(spool.index)
        rows = torch.cat(dense_rows(spool, table, optimizer_weights(spool), slice(0, len(table.slots))), 1)
        return rows.sum(0), len(spool.index), len(spool.steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_contributions_under_autocast_sum_to_the_weights_way(tmp_path, kind, optimizer, dtype):
    path, taken, _ = trained(tmp_path, kind, optimizer, autocast=True, dtype=dtype)
    total, visits, steps = summed(tmp_path)
    assert (taken, visits, steps) == (9, 9 * BATCH, 9)
    assert float((path + total).norm()) < TOLERANCE * float(path.norm())


@pytest.mark.parametrize("clip", [None, 20.0])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("group_bytes", [1, 8_000_000])
def test_a_loss_scale_is_taken_out_and_skipped_steps_have_no_contributions(
    tmp_path, monkeypatch, clip, autocast, parts, group_bytes
):
    """Also those that the writing thread had got already (group_bytes 1)."""
    monkeypatch.setattr("amnesiac.capture.writer.GROUP_BYTES", group_bytes)
    path, taken, left_out = trained(
        tmp_path, "cnn", "sgd", autocast=autocast, scaler=skipping(), clip=clip, parts=parts
    )
    total, visits, steps = summed(tmp_path)
    assert (taken, left_out) == (6, 3)  # the first, the fifth and the ninth and last
    assert (visits, steps) == (6 * BATCH, 6)
    assert torch.isfinite(total).all()
    tolerance = TOLERANCE if autocast else 1e-5
    assert float((path + total).norm()) < tolerance * float(path.norm())


def test_a_first_mini_batch_that_overflowed_is_not_the_one_that_is_checked(tmp_path):
    """The check of a layer that mixes samples is made with the first finite gradients."""
    path, taken, left_out = trained(tmp_path, "mlp", "sgd", autocast=False, scaler=skipping(), epochs=1)
    assert (taken, left_out) == (2, 1)
    with read_spool(tmp_path) as spool:
        assert np.isfinite(spool.layout.decode(np.array(spool.visits)).numpy()).all()
    assert float((path + summed(tmp_path)[0]).norm()) < 1e-5 * float(path.norm())


def model_and_recorder(folder: Path):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, Recorder(model, optimizer, Spool(folder))


def test_a_step_with_infinite_first_gradients_is_refused(tmp_path):
    model, optimizer, recorder = model_and_recorder(tmp_path)
    with recorder.batch(range(3)):
        (model(torch.ones(3, 4)).sum() * torch.inf).backward()
    with pytest.raises(InputError, match="GradScaler"):
        optimizer.step()
    recorder.close()


def test_gradients_scaled_between_the_parts_of_a_step_are_refused(tmp_path):
    model, _, recorder = model_and_recorder(tmp_path)
    with recorder.batch(range(3)):
        model(torch.ones(3, 4)).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    with (
        pytest.raises(InputError, match="changed between two recorded mini-batches"),
        recorder.batch(range(3)),
    ):
        pass
    recorder.close()


def test_a_step_left_out_by_the_loop_has_no_contributions(tmp_path):
    """A loop that looks at the loss and zeroes the gradients instead of stepping."""
    model, optimizer, recorder = model_and_recorder(tmp_path)
    for k in range(4):
        with recorder.batch([2 * k, 2 * k + 1]):
            model(torch.ones(2, 4)).sum().backward()
        if k % 2:
            optimizer.step()
        optimizer.zero_grad()
    recorder.close()
    with read_spool(tmp_path) as spool:
        assert spool.index.tolist() == [[2, 0, 0], [3, 0, 1], [6, 1, 2], [7, 1, 3]]
        assert len(spool.visits) == 4
