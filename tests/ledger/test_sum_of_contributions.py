"""Invariant 1 of method.md §8: the sum of all contributions plus the residual is theta_T - theta_0.

Twin: the residual is not defined as the difference but computed by a recursion of its own, from weight decay alone.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool, read_spool
from amnesiac.ledger.visits import dense_rows, joined_rows, optimizer_weights, visit_table
from amnesiac.settings import OptimizerSettings, ScheduleSettings
from amnesiac.training.optimizers import build_optimizer, learning_rate

MODELS = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh(), nn.Linear(6, 3)), 1),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)), 1,
    ),
    "groups and group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3)), 1,
    ),
    "layer norm and fallback": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.LayerNorm(6), nn.PReLU(6), nn.Linear(6, 3)), 1,
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(True), nn.Flatten(), nn.Linear(12, 3)), 1,
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Flatten(), nn.Embedding(8, 4), nn.Flatten(), nn.Linear(128, 3)), "tokens",
    ),
}  # fmt: skip
N, BATCH, EPOCHS = 11, 4, 3


@st.composite
def optimizers(draw):
    name = draw(st.sampled_from(["sgd", "adam", "adamw"]))
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9])) if name == "sgd" else 0.0
    return OptimizerSettings(
        name=name,
        lr=draw(st.sampled_from([0.003, 0.05])),
        momentum=momentum,
        nesterov=momentum > 0 and draw(st.booleans()),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
    )


def decay_only(optimizer, rule, before, count, state):
    """One step of the optimiser on the weight-decay part of the gradient alone: twin of the residual."""
    group = optimizer.param_groups[0]
    lr, decay = group["lr"], group["weight_decay"]
    if rule.kind == "adamw":
        return -lr * decay * before
    pull = decay * before
    if rule.kind == "sgd":
        state["m"] = rule.momentum * state.get("m", 0.0) + pull
        return -lr * (pull + rule.momentum * state["m"] if rule.nesterov else state["m"])
    state["m"] = rule.beta1 * state.get("m", 0.0) + (1 - rule.beta1) * pull
    v = torch.cat([optimizer.state[p]["exp_avg_sq"].flatten() for p in optimizer.param_groups[0]["params"]])
    scaling = 1 / ((v / (1 - rule.beta2**count)).sqrt() + rule.eps)
    return -lr / (1 - rule.beta1**count) * scaling * state["m"]


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def run(folder, kind, settings_, schedule, clip, seed):
    """A plain training loop in float64 with the recorder around it; returns (theta_0, theta_T, decay-only part)."""
    torch.manual_seed(seed)
    make, form = MODELS[kind]
    model = make().double()
    shape = (N, 2, 4, 4)
    inputs = torch.randint(0, 8, shape) if form == "tokens" else torch.randn(shape, dtype=torch.float64)
    labels = torch.randint(0, 3, (N,))
    optimizer = build_optimizer(settings_, model.parameters())
    recorder = Recorder(model, optimizer, Spool(folder), dtype="float64")
    start, residual, state, count = flat(model), torch.zeros_like(flat(model)), {}, 0
    for epoch in range(EPOCHS):
        for k, rows in enumerate(torch.randperm(N).split(BATCH)):
            optimizer.param_groups[0]["lr"] = learning_rate(settings_.lr, schedule, epoch + k / 3, EPOCHS)
            optimizer.zero_grad()
            with recorder.batch(rows):
                (F.cross_entropy(model(inputs[rows]), labels[rows], reduction="sum") / BATCH).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            before, count = flat(model), count + 1
            optimizer.step()
            residual += decay_only(optimizer, recorder.rule, before, count, state)
    recorder.close()
    return start, flat(model), residual


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(MODELS)),
    optimizer=optimizers(),
    schedule=st.sampled_from(["constant", "step", "cosine"]),
    warmup=st.sampled_from([0.0, 1.0]),
    clip=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 5),
)
def test_contributions_and_residual_make_up_the_training(kind, optimizer, schedule, warmup, clip, seed):
    schedule = ScheduleSettings(name=schedule, every=1, gamma=0.5, warmup_epochs=warmup)
    with tempfile.TemporaryDirectory() as folder:
        start, end, residual = run(Path(folder) / "spool", kind, optimizer, schedule, clip, seed)
        with read_spool(Path(folder) / "spool") as spool:
            table, weights = visit_table(spool.index), optimizer_weights(spool)
            rows = torch.cat(dense_rows(spool, table, weights, slice(0, N)), 1)
    path = end - start
    # Adam's scaling is kept as float32, everything else is float64
    tolerance = 1e-6 if optimizer.name != "sgd" else 1e-11
    assert rows.shape == (N, len(path))
    assert float((path + rows.sum(0) - residual).norm()) <= tolerance * float(path.norm() + rows.sum(0).norm())


@pytest.mark.parametrize("nesterov", [False, True])
def test_factor_rows_equal_dense_rows(tmp_path, nesterov):
    """The compact form of a row is the same numbers."""
    optimizer = OptimizerSettings(momentum=0.9, nesterov=nesterov)
    run(tmp_path / "spool", "linear", optimizer, ScheduleSettings(), None, 0)
    with read_spool(tmp_path / "spool") as spool:
        table, weights = visit_table(spool.index), optimizer_weights(spool)
        plan = tuple(_joined(block, table.visits) for block in spool.layout.blocks)
        joined = joined_rows(spool, table, weights, plan, slice(0, N))
        dense = dense_rows(spool, table, weights, slice(0, N))
    from amnesiac.capture.blocks import to_dense

    for block, ours, theirs in zip(plan, joined, dense, strict=True):
        torch.testing.assert_close(to_dense(block, ours), theirs)


def _joined(block, visits):
    from dataclasses import replace

    return replace(block, rank=block.rank * visits) if block.rank else block


def test_a_sample_with_fewer_visits_gets_zeros_never_anothers_row(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, Spool(tmp_path / "spool"), dtype="float64")
    x = torch.randn(4, 3, dtype=torch.float64)
    for rows in ([0, 1, 2], [0, 3], [3, 0]):
        optimizer.zero_grad()
        with recorder.batch(rows):
            model(x[rows]).square().sum().backward()
        optimizer.step()
    recorder.close()
    with read_spool(tmp_path / "spool") as spool:
        table, weights = visit_table(spool.index), optimizer_weights(spool)
        plan = tuple(_joined(block, table.visits) for block in spool.layout.blocks)
        (joined,) = joined_rows(spool, table, weights, plan, slice(0, 4))
    assert (table.slots >= 0).sum(1).tolist() == [3, 1, 1, 2]
    right = joined[1, 3 * 2 :].reshape(3, 4)  # sample 1: three outer products, the last two absent
    assert np.allclose(right[0, :3], x[1])
    assert not right[1:].any()
